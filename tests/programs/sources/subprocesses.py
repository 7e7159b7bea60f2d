"""subprocess and asyncio: pipes, time limits, signals, many children at once."""

import asyncio
import subprocess
import sys

print(subprocess.run(["tr", "a-z", "A-Z"], input="text", capture_output=True, text=True).stdout)
print(subprocess.run("exit 3", shell=True).returncode)
try:
    subprocess.run(["sleep", "60"], timeout=0.1)
except subprocess.TimeoutExpired:
    print("time is over")
try:
    subprocess.run(["/no/such/program"])
except FileNotFoundError as error:
    print(error.filename)
big = b"x" * 1_000_000
print(len(subprocess.run(["cat"], input=big, stdout=subprocess.PIPE).stdout))


async def main():
    process = await asyncio.create_subprocess_exec(
        "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    print(await process.communicate(b"hello"), process.returncode)
    process = await asyncio.create_subprocess_shell("exec sleep 60")
    process.terminate()
    print(await process.wait())

    async def square(number):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", f"print({number} ** 2)", stdout=asyncio.subprocess.PIPE
        )
        return int((await process.communicate())[0])

    print(await asyncio.gather(*(square(number) for number in range(8))))
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.05)
    except TimeoutError:
        print("time is over")
    print(await asyncio.to_thread(sum, range(10)))
    server = await asyncio.start_unix_server(echo, "socket")
    reader, writer = await asyncio.open_unix_connection("socket")
    writer.write(b"over a socket\n")
    print(await reader.readline())
    writer.close()
    server.close()


async def echo(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


asyncio.run(main())
