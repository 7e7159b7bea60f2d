"""Protocols: what a socket is connected to (struct sock).

`socket.py` has what all families share and what the system calls ask of a family; each family is a
package or module of its own.  None of them knows of files, descriptors or paths: a family that names
its sockets in the file system (unix) is given the means from above.
"""
