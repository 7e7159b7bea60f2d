/*
 * The micro-benchmark: one static program that runs natively and in any sandbox alike.
 *
 *     micro PREFIX BATCH_MS BATCHES OPERATION...
 *
 * Files that it makes are named PREFIX..., so that whoever started it can remove what a killed run left.
 * For each operation it prints one line as soon as it has it:
 *
 *     NAME ok NS NS ...       nanoseconds per operation, one figure a batch
 *     NAME skip REASON        not possible here, and known to be so
 *     NAME fail REASON        anything else; the program ends, the caller starts it anew with the rest
 *
 *     micro time COMMAND...   runs it, prints `elapsed NS` behind its output, has its exit status
 *     micro exit              does nothing: what spawn_exec_wait starts
 */
#ifndef MICRO_H
#define MICRO_H

#include <stddef.h>

struct operation {
    const char *name;
    void (*run)(void);
    void (*setup)(void);    /* or NULL; not timed */
    void (*teardown)(void); /* or NULL; not timed */
};

/* Each table ends with an entry without a name. */
extern const struct operation call_operations[], file_operations[], memory_operations[];
extern const struct operation process_operations[], wait_operations[], socket_operations[];

extern const char *own_path; /* how the program was started, for operations that start it again */
extern char block[65536];

/* The name of a file made for this run, in a static buffer that the next call overwrites. */
const char *temporary(const char *name);

/* End the operation with the reason `what: strerror(errno)`. */
_Noreturn void fail(const char *what);
_Noreturn void skip(const char *what);

/* For calls whose only possible answer is known: anything else is a failure. */
#define MUST(call)                                                                                 \
    do {                                                                                           \
        if (!(call))                                                                               \
            fail(#call);                                                                           \
    } while (0)

/*
 * Starts `serve` in a child of its own, which ends when serve returns; stop_child waits for that.  The
 * child has all descriptors of its parent: serve closes those that would keep it from seeing the end.
 */
void start_child(void (*serve)(void));
void stop_child(void);

#endif
