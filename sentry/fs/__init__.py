"""Files: the virtual file system and everything that can be behind a descriptor.

In Linux's terms: an `Inode` (inode.py) is a file in a `Filesystem`; a `Dentry` names it in a
directory; a `Mount` puts a tree of dentries into the sandbox's one tree; a `Path` is a place there;
a `File` (file.py) is an open file description.  walk.py goes from bytes to a `Path`.
"""
