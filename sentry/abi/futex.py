"""futex(2) and the futex2 calls: operations, flags, structs (linux/futex.h)."""

from __future__ import annotations

from _struct import Struct

WAIT, WAKE, FD, REQUEUE, CMP_REQUEUE, WAKE_OP, LOCK_PI, UNLOCK_PI, TRYLOCK_PI = range(9)
WAIT_BITSET, WAKE_BITSET, WAIT_REQUEUE_PI, CMP_REQUEUE_PI, LOCK_PI2 = range(9, 14)
PRIVATE = 128
CLOCK_REALTIME = 256
#: Of WAKE_OP: FUTEX_OP_SET with 0; the comparison (FUTEX_OP_CMP_EQ with -1) is true of no thread id.
SET_ZERO = 0xFFF

#: The word of a futex with an owner.
FUTEX_WAITERS = 0x80000000
FUTEX_OWNER_DIED = 0x40000000
FUTEX_TID_MASK = 0x3FFFFFFF

MATCH_ANY = 0xFFFFFFFF
ROBUST_LIST_LIMIT = 2048
#: struct robust_list_head: first entry, offset of the futex word, entry under way.
ROBUST_HEAD = Struct("<QqQ")

FUTEX2_SIZE_MASK = 3
FUTEX2_SIZE_U32 = 2
FUTEX2_PRIVATE = 128
FUTEX_WAITV_MAX = 128
#: struct futex_waitv: value, address, flags, reserved.
FUTEX_WAITV = Struct("<QQII")
