"""Signal handlers of Python, timers, and signals among threads."""

import os
import select
import signal
import threading
import time

seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(signal.Signals(number).name))
os.kill(os.getpid(), signal.SIGUSR1)
print(seen)

signal.signal(signal.SIGALRM, lambda number, frame: seen.append("alarm"))
signal.setitimer(signal.ITIMER_REAL, 0.05)
time.sleep(0.2)
print(seen)


def leave(number, frame):
    raise TimeoutError


signal.signal(signal.SIGALRM, leave)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    time.sleep(60)
except TimeoutError:
    print("interrupted")

reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGUSR2, lambda number, frame: None)
os.kill(os.getpid(), signal.SIGUSR2)
print(select.select([reader], [], [], 60)[0] == [reader], os.read(reader, 10) == bytes([signal.SIGUSR2]))
signal.set_wakeup_fd(-1)

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
print(signal.sigwait({signal.SIGUSR1}).name)
print(signal.sigtimedwait({signal.SIGUSR1}, 0.05))
signal.raise_signal(signal.SIGUSR1)
print(sorted(number.name for number in signal.sigpending()))
print(signal.sigwaitinfo({signal.SIGUSR1}).si_pid == os.getpid())

pid = os.fork()
if pid == 0:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pause()
time.sleep(0.05)
os.kill(pid, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
try:
    os.kill(pid, 0)
except ProcessLookupError:
    print("gone")

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
try:
    threading.Event().wait(60)
except KeyboardInterrupt:
    print("keyboard interrupt")
