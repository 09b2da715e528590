"""Relays TCP, and lets everything arrive late: python slow_relay.py PORT MARK DELAY_MS

What a rule of nftables redirects to the port goes on to where it was meant for, over a connection
that bears the mark, by which the rule knows not to redirect it again.
"""

import asyncio
import socket
import sys

_ORIGINAL_DESTINATION = 80  # SO_ORIGINAL_DST of linux/netfilter_ipv4.h
_CHUNK_BYTES = 2**16
_MAX_WAITING = 1024  # chunks on the way


async def delayed(reader, writer, delay_secs):
    """Copies until the reader's end, each chunk `delay_secs` after it came."""
    clock = asyncio.get_running_loop().time
    on_the_way = asyncio.Queue(_MAX_WAITING)

    async def deliver():
        data = b"."
        while data:
            due_secs, data = await on_the_way.get()
            await asyncio.sleep(max(0.0, due_secs - clock()))
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    delivery = asyncio.ensure_future(deliver())
    try:
        data = b"."
        while data and not delivery.done():
            data = await reader.read(_CHUNK_BYTES)
            await on_the_way.put((clock() + delay_secs, data))
        await delivery
    finally:
        delivery.cancel()


async def relay(reader, writer, mark, delay_secs):
    """One connection, until both sides have ended it or one is gone."""
    called = writer.get_extra_info("socket")
    told = called.getsockopt(socket.SOL_IP, _ORIGINAL_DESTINATION, 16)
    address = (socket.inet_ntoa(told[4:8]), int.from_bytes(told[2:4], "big"))
    onward = socket.socket()
    onward.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    onward.setblocking(False)
    far_writer = None
    try:
        await asyncio.get_running_loop().sock_connect(onward, address)
        far_reader, far_writer = await asyncio.open_connection(sock=onward)
        await asyncio.gather(
            delayed(reader, far_writer, delay_secs), delayed(far_reader, writer, delay_secs)
        )
    except OSError:
        pass  # one side is gone: the other is told by the close
    finally:
        onward.close() if far_writer is None else far_writer.close()
        writer.close()


async def main(port, mark, delay_ms):
    server = await asyncio.start_server(
        lambda reader, writer: relay(reader, writer, mark, delay_ms / 1000), "0.0.0.0", port
    )
    print("listens", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
