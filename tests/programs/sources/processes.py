"""multiprocessing in both ways to start, and concurrent.futures."""

import concurrent.futures
import multiprocessing
import os


def square(number):
    return number * number


def add(values, lock, total):
    for value in values:
        with lock:
            total.value += value


def serve(connection):
    while (request := connection.recv()) is not None:
        connection.send(request.upper())
    connection.close()


def try_method(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        print(method, pool.map(square, range(8)), flush=True)
    lock, total = context.Lock(), context.Value("i", 0)
    workers = [context.Process(target=add, args=(range(20), lock, total)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(total.value, [worker.exitcode for worker in workers])
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,))
    server.start()
    ours.send("text")
    print(ours.recv())
    ours.send(None)
    server.join()
    queue = context.Queue()
    process = context.Process(target=queue.put, args=(["from", "a", "queue"],))
    process.start()
    print(queue.get(timeout=60))
    process.join()


def main():
    try_method("fork")
    try_method("spawn")
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        print(sorted(pool.map(square, range(10))))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        print(sum(pool.map(square, range(100))))
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os._exit(3 if os.getppid() == parent else 4)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
