/* The dentry cache as the engine sees it: which names stand where, so that a path can be walked without Python.
 *
 * Python's Dentry, Mount, FsContext and Credentials own one of these structs each and keep it the same as
 * themselves: sentry/fs/dcache.py is the only one that puts names in and takes them out.  What is not in here the
 * engine does not know, and passes the call on.
 *
 * A dnode or vmount outlives its Python object as long as another one refers to it (refs); without its
 * object it is in no table and has no vnode, so a walk that comes there passes.
 */
#ifndef SENTRY_DCACHE_H
#define SENTRY_DCACHE_H

#include <stddef.h>
#include <stdint.h>

#include "vfs.h"

/* cdef begin */
/* dnode.flags */
#define DNODE_HASHED 1   /* stands in the table: no other dnode has this name there */
#define DNODE_NEGATIVE 2 /* there is no such file */
#define DNODE_EXACT 4    /* a directory of which the table tells the truth */
#define DNODE_LEARNT 8   /* no Dentry is behind it: engine/learnt.c */
#define DNODE_PLAIN 16   /* a directory that the engine may open: engine/fast_dir.c */

/* A name in a directory (sentry/fs/dentry.py, Dentry). */
struct dnode {
    struct dnode *next;    /* in its chain of the table */
    struct dnode *parent;  /* NULL for the root of a file system; counts in its refs */
    struct vnode *vnode;   /* NULL: negative, or unknown to the engine */
    struct vmount *mounts; /* that cover it, the newest first */
    struct vfile *spares;  /* files that were open here: engine/fast_open.c */
    struct dnode *learnt;  /* names below that are DNODE_LEARNT */
    struct listing *listing; /* all that is in this directory, NULL: not known */
    char *name;            /* brief, or allocated */
    char *link;            /* what the symbolic link says, NULL: not known, or not always the same */
    uint32_t hash, flags, refs, mounted;
    uint16_t name_size, link_size;
    char brief[28];
};

/* vmount.flags: MNT_* of sentry/fs/dentry.py and, of the file system itself, */
#define VMOUNT_FS_READONLY 256
#define VMOUNT_ATTACHED 512 /* stands in mountpoint->mounts */

/* A mount (sentry/fs/dentry.py, Mount). */
struct vmount {
    struct vmount *next;      /* on the same dnode */
    struct vmount *parent;    /* NULL for the root of a namespace; these three count in refs */
    struct dnode *mountpoint; /* where on the parent */
    struct dnode *root;
    uint32_t flags, refs;
    uint64_t id;
};

/* Where a task stands (struct fs_struct); the Python objects keep alive what it points to. */
struct fs_context {
    struct vmount *root_mount, *cwd_mount;
    struct dnode *root, *cwd;
};

/* What permissions are checked by (struct cred); never changed once a task has it. */
struct vcred {
    uint32_t uid, gid, fsuid, fsgid;
    uint64_t effective, of_real; /* the second: what access(2) goes by */
    const uint32_t *groups;
    uint32_t group_count;
};

#define DNODE_LINK_MAX 1024 /* longer symbolic links are not kept */

/* engine/dcache.c.  NULL stands for a dnode or mount that there was no memory for: nothing happens to it. */
/* It is the file `v` (NULL: unknown to the engine), or none; flags: DNODE_NEGATIVE, or DNODE_EXACT and DNODE_PLAIN. */
struct dnode *dnode_new(struct dnode *parent, const char *name, uint32_t size, struct vnode *v, uint32_t flags);
void dnode_free(struct dnode *d);
void dnode_bind(struct dnode *d, struct vnode *v, uint32_t flags);
void dnode_hash(struct dnode *d);
void dnode_unhash(struct dnode *d);
/* Another name or parent; it is not in the table afterwards. */
void dnode_move(struct dnode *d, struct dnode *parent, const char *name, uint32_t size);
void dnode_set_link(struct dnode *d, const char *text, uint32_t size);

/* engine/learnt.c: what a listing (Rlistdir.data) tells about names that Python does not know. */
#define LEARNT_MAX 16384
extern uint32_t learnt_count, learnt_limit;
/* How many are new.  What has a dnode already, or several links, is left out; dir_nlink (unless 0) is what
 * directories show. */
uint32_t dnode_learn(struct dnode *dir, const uint8_t *listing, size_t size, uint64_t dev, uint32_t dir_nlink);
/* The learnt dnode of a name, or NULL. */
struct dnode *dnode_learnt(const struct dnode *dir, const char *name, uint32_t size);
/* Whether somebody has it open, or it or a learnt name below has files lent to it. */
int dnode_busy(const struct dnode *d);
/* Forget it, unless it is busy; all below `dir`, none of which may be. */
void dnode_unlearn(struct dnode *d);
void dnode_unlearn_all(struct dnode *dir);

/* engine/listing.c: all that is in a directory, in its order. */
struct listing {
    uint32_t refs, used; /* used: somebody has listed it */
    uint32_t count, size; /* entries; bytes */
    uint32_t *at;        /* [count]: where each entry begins */
    uint8_t *data;       /* struct listed, and the names */
    struct dnode *dnode; /* whose it is, NULL: nobody's any more */
    struct listing *older, *newer;
};
#define LISTING_BYTES 4194304
extern uint64_t listing_limit; /* of all that hang on dnodes */
/* `data`, an Rlistdirs' data without "." and "..", is all that is in `d`: 1 if the engine knows it now. */
int dnode_list(struct dnode *d, const uint8_t *data, size_t size);
/* It changes. */
void dnode_unlist(struct dnode *d);
struct listing *listing_get(struct listing *l);
void listing_put(struct listing *l);

/* engine/lent.c: regular files opened ahead, for learnt names; files[] has room for all. */
/* Close what is not a regular file that is open for reading: fds[i] is -EIO then. */
void lent_check(int32_t *fds, uint32_t count);
/* fds[i] (if it is one) belongs to the entry at[i] of the listing; what can't be lent is closed.  How many were. */
uint32_t lent_add(struct vfile *files, uint32_t batch, struct dnode *dir, struct vmount *mount, const uint8_t *listing,
                  size_t size, const uint32_t *at, const int32_t *fds, uint32_t count);
/* Close all that nobody has open; how many are left. */
uint32_t lent_end(struct vfile *files, uint32_t count);
/* How many were opened at some time. */
uint32_t lent_used(const struct vfile *files, uint32_t count);

struct vmount *vmount_new(struct dnode *root, uint32_t flags, uint64_t id);
void vmount_free(struct vmount *m);
void vmount_set_flags(struct vmount *m, uint32_t flags);
void vmount_attach(struct vmount *m, struct vmount *parent, struct dnode *mountpoint);
void vmount_detach(struct vmount *m);
/* A detached one: there is nothing above it any more. */
void vmount_uproot(struct vmount *m);

/* engine/walk.c.  A walk begins at `mount`, `at`, and ends at what the path names. */
#define WALK_NOFOLLOW 1  /* a symbolic link at the end is not followed */
#define WALK_DIRECTORY 2 /* -ENOTDIR for anything else */
#define WALK_PASS 1      /* Python has to do it */
struct path_walk {
    const struct fs_context *fs;
    const struct vcred *cred;
    struct vmount *mount;
    struct dnode *at;
    uint32_t flags;
};
/* 0, -errno, or WALK_PASS. */
int path_walk(struct path_walk *w, const char *path, uint32_t size);
/* Whether the mode bits and capabilities grant `mask` (MAY_*). */
int vnode_allowed(const struct vnode *v, const struct vcred *cred, uint32_t mask);
/* cdef end */

#define MAY_EXEC 1
#define MAY_WRITE 2
#define MAY_READ 4

/* sentry/fs/dentry.py */
#define MNT_READONLY 1
#define MNT_NODEV 4
#define MNT_NOEXEC 8
#define MNT_NOSYMFOLLOW 16

/* Put `d` in the place of `old`, which is in the table no more. */
void dnode_replace(struct dnode *old, struct dnode *d);
/* What hangs on `from` hangs on `to`, another dnode of the same directory. */
void dnode_move_listing(struct dnode *from, struct dnode *to);
/* dnode_new in memory that is there already, all zeroes, and that free() takes. */
int dnode_init(struct dnode *d, struct dnode *parent, const char *name, uint32_t size, struct vnode *v,
               uint32_t flags);
struct vmount *mount_over(const struct vmount *mount, const struct dnode *d);
struct dnode *dnode_find(const struct dnode *parent, const char *name, uint32_t size);

#endif
