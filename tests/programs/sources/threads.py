"""threading: locks, conditions, timers, barriers, many threads."""

import queue
import threading
import time

total = 0
lock = threading.Lock()


def add():
    global total
    for _ in range(500):
        with lock:
            total += 1


threads = [threading.Thread(target=add) for _ in range(50)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(total)

jobs, results = queue.Queue(), queue.Queue()


def work():
    while (job := jobs.get()) is not None:
        results.put(job * job)


workers = [threading.Thread(target=work) for _ in range(4)]
for worker in workers:
    worker.start()
for number in range(100):
    jobs.put(number)
for _ in workers:
    jobs.put(None)
print(sum(results.get(timeout=60) for _ in range(100)))

event = threading.Event()
threading.Timer(0.1, event.set).start()
start = time.monotonic()
print(event.wait(60), time.monotonic() - start >= 0.09)
print(event.wait(0.01), threading.Event().wait(0.05), threading.Semaphore(0).acquire(timeout=0.05))

barrier = threading.Barrier(8)
passed = []


def meet():
    passed.append(barrier.wait(60))


threads = [threading.Thread(target=meet) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(passed))
print(threading.active_count() - sum(worker.is_alive() for worker in workers))
