"""Tenants of one program: each with its own server, and none survived by it.

python examples/tenants.py
"""

from __future__ import annotations

import asyncio

from probate import ProcessManager


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one line, then hang up."""
    name = (await reader.readline()).decode().strip()
    writer.write(f"hello {name}\n".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    """Run two tenants; end one, and see that the other is not touched."""
    async with ProcessManager.builder().with_grace(1.0).build() as manager:
        ports = {}
        tenants = {}
        for name in ("red", "blue"):
            tenant = tenants[name] = manager.create_process(name)
            server = await asyncio.start_server(greet, "127.0.0.1", 0)
            tenant.adopt(server)
            ports[name] = server.sockets[0].getsockname()[1]

        print(await manager.terminate_process_async(tenants["red"].pid))

        for name, port in ports.items():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                print(f"{name} is gone")
                continue
            writer.write(b"world\n")
            print(f"{name} says {(await reader.readline()).decode().strip()!r}")
            writer.close()
            await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
