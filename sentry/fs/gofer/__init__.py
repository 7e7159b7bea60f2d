"""Files of the host, by way of the Gofer: client.py speaks 9P, inode.py is the file system over it."""
