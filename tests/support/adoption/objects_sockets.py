"""Sockets, and the servers and clients of the standard library that are made of them."""

from __future__ import annotations

import http.client
import http.server
import os
import select
import selectors
import socket
import socketserver
import ssl
import threading
import wsgiref.simple_server
import xmlrpc.client
import xmlrpc.server
from typing import TYPE_CHECKING, Any, Final

from certificates import contexts

from adoption.case import Trial, case
from adoption.witness import answers, end_of_file, number, path, runs, works

if TYPE_CHECKING:
    from adoption.place import Place

LOOPBACK: Final = ("127.0.0.1", 0)
SOCKETS: Final = "Sockets"
SERVERS: Final = "Servers and clients of the standard library"
SELECTORS: Final = "Selectors"


@case(SOCKETS, "TCP listener")
def tcp_listener(place: Place) -> Trial:
    sock = place.enter_context(socket.create_server(LOOPBACK))
    return Trial(sock, (number(sock.fileno()), answers(sock.getsockname())))


@case(SOCKETS, "TCP stream")
def tcp_stream(place: Place) -> Trial:
    listener = place.enter_context(socket.create_server(LOOPBACK))
    sock = place.enter_context(socket.create_connection(listener.getsockname()))
    peer = place.enter_context(listener.accept()[0])
    return Trial(sock, (number(sock.fileno()), end_of_file(peer)))


@case(SOCKETS, "TCP socket that is not connected")
def tcp_socket(place: Place) -> Trial:
    sock = place.enter_context(socket.socket())
    return Trial(sock, (number(sock.fileno()),))


@case(SOCKETS, "UDP socket")
def udp_socket(place: Place) -> Trial:
    sock = place.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    sock.bind(LOOPBACK)
    return Trial(sock, (number(sock.fileno()),))


@case(SOCKETS, "IPv6 socket")
def ipv6_socket(place: Place) -> Trial:
    sock = place.enter_context(socket.socket(socket.AF_INET6))
    return Trial(sock, (number(sock.fileno()),))


@case(SOCKETS, "unix listener, with a path")
def unix_listener(place: Place) -> Trial:
    sock = place.enter_context(socket.socket(socket.AF_UNIX))
    name = str(place.folder / "socket")
    sock.bind(name)
    sock.listen()
    return Trial(sock, (number(sock.fileno()), path(name), answers(name, socket.AF_UNIX)))


@case(SOCKETS, "unix datagram socket, with a path")
def unix_datagram(place: Place) -> Trial:
    sock = place.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    name = str(place.folder / "socket")
    sock.bind(name)
    return Trial(sock, (number(sock.fileno()), path(name)))


@case(SOCKETS, "unix sequential packet socket")
def unix_packets(place: Place) -> Trial:
    sock, peer = map(place.enter_context, socket.socketpair(type=socket.SOCK_SEQPACKET))
    return Trial(sock, (number(sock.fileno()), end_of_file(peer)))


@case(SOCKETS, "one end of `socket.socketpair`")
def pair(place: Place) -> Trial:
    sock, peer = map(place.enter_context, socket.socketpair())
    return Trial(sock, (number(sock.fileno()), end_of_file(peer)))


@case(SOCKETS, "netlink socket")
def netlink(place: Place) -> Trial:
    sock = place.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
    return Trial(sock, (number(sock.fileno()),))


@case(SOCKETS, "duplicate of a socket")
def duplicate(place: Place) -> Trial:
    sock, peer = map(place.enter_context, socket.socketpair())
    dup = place.enter_context(sock.dup())
    # The socket itself is nobody's, and goes on: its peer sees no end.
    place.callback(_still_connected, sock, peer)
    return Trial(dup, (number(dup.fileno()),))


def _still_connected(one: socket.socket, other: socket.socket) -> None:
    one.sendall(b".")
    assert other.recv(2) == b"."


@case(SOCKETS, "TLS socket, connected")
def tls_socket(place: Place) -> Trial:
    for_server, for_client = contexts()
    listener = place.enter_context(socket.create_server(LOOPBACK))
    got: list[socket.socket] = []

    def serve() -> None:
        got.append(for_server.wrap_socket(listener.accept()[0], server_side=True))

    thread = threading.Thread(target=serve)
    thread.start()
    sock = for_client.wrap_socket(socket.create_connection(listener.getsockname()))
    thread.join(10)
    place.enter_context(sock)
    place.enter_context(got[0])
    return Trial(sock, (number(sock.fileno()),))


@case(SOCKETS, "`ssl.SSLObject`, which has no socket")
def ssl_object(_: Place) -> Trial:
    made = contexts()[1].wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    return Trial(made)


@case(SOCKETS, "file of `socket.makefile`")
def makefile(place: Place) -> Trial:
    sock, peer = map(place.enter_context, socket.socketpair())
    file = place.enter_context(sock.makefile("rb"))
    sock.close()
    return Trial(
        file, (number(file.fileno()), end_of_file(peer)), release=file.close, say="file.close"
    )


@case(SOCKETS, "socket that is closed")
def closed_socket(_: Place) -> Trial:
    sock = socket.socket()
    sock.close()
    return Trial(sock)


@case(SOCKETS, "number of a socket")
def socket_number(place: Place) -> Trial:
    sock, peer = map(place.enter_context, socket.socketpair())
    fd = sock.detach()
    place.finally_(os.close, fd)
    return Trial(fd, (number(fd), end_of_file(peer)))


# -- servers and clients -----------------------------------------------------------


class Handler(socketserver.BaseRequestHandler):
    """Reads until its client has had enough."""

    def handle(self) -> None:
        if isinstance(self.request, socket.socket):
            self.request.recv(1)


def _serving(place: Place, server: Any, *more: Any) -> Trial:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    place.finally_(thread.join, 10)
    place.finally_(server.server_close)
    place.finally_(lambda: server.shutdown() if thread.is_alive() else None)
    witnesses = (
        number(server.fileno()),
        runs(thread, "`serve_forever` has returned"),
        *more,
    )
    return Trial(server, witnesses)


@case(SERVERS, "`socketserver.TCPServer`, serving")
def tcp_server(place: Place) -> Trial:
    server = socketserver.TCPServer(LOOPBACK, Handler)
    return _serving(place, server, answers(server.server_address))


@case(SERVERS, "`socketserver.TCPServer`, not serving yet")
def idle_server(place: Place) -> Trial:
    server = place.enter_context(socketserver.TCPServer(LOOPBACK, Handler))
    return Trial(server, (number(server.fileno()), answers(server.server_address)))


@case(SERVERS, "`socketserver.ThreadingTCPServer`, with a connection")
def threading_server(place: Place) -> Trial:
    server = socketserver.ThreadingTCPServer(LOOPBACK, Handler)
    trial = _serving(place, server)
    client = place.enter_context(socket.create_connection(server.socket.getsockname()))
    more = (answers(server.server_address), end_of_file(client))
    return Trial(server, trial.witnesses + more)


@case(SERVERS, "`socketserver.ThreadingUDPServer`, serving")
def udp_server(place: Place) -> Trial:
    return _serving(place, socketserver.ThreadingUDPServer(LOOPBACK, Handler))


@case(SERVERS, "`socketserver.ForkingTCPServer`, serving")
def forking_server(place: Place) -> Trial:
    return _serving(place, socketserver.ForkingTCPServer(LOOPBACK, Handler))


@case(SERVERS, "`socketserver.ThreadingUnixStreamServer`, serving")
def unix_server(place: Place) -> Trial:
    name = str(place.folder / "socket")
    return _serving(place, socketserver.ThreadingUnixStreamServer(name, Handler), path(name))


@case(SERVERS, "`http.server.HTTPServer`, serving")
def http_server(place: Place) -> Trial:
    server = http.server.HTTPServer(LOOPBACK, http.server.BaseHTTPRequestHandler)
    return _serving(place, server, answers(server.server_address))


@case(SERVERS, "`http.server.ThreadingHTTPServer`, serving")
def threading_http_server(place: Place) -> Trial:
    server = http.server.ThreadingHTTPServer(LOOPBACK, http.server.BaseHTTPRequestHandler)
    return _serving(place, server, answers(server.server_address))


@case(SERVERS, "`xmlrpc.server.SimpleXMLRPCServer`, serving")
def xmlrpc_server(place: Place) -> Trial:
    server = xmlrpc.server.SimpleXMLRPCServer(LOOPBACK)
    return _serving(place, server, answers(server.server_address))


@case(SERVERS, "`wsgiref.simple_server.WSGIServer`, serving")
def wsgi_server(place: Place) -> Trial:
    server = wsgiref.simple_server.make_server(*LOOPBACK, wsgiref.simple_server.demo_app)
    return _serving(place, server, answers(server.server_address))


@case(SERVERS, "`http.client.HTTPConnection`")
def http_connection(place: Place) -> Trial:
    listener = place.enter_context(socket.create_server(LOOPBACK))
    connection = http.client.HTTPConnection(*listener.getsockname())
    connection.connect()
    place.callback(connection.close)
    peer = place.enter_context(listener.accept()[0])
    return Trial(
        connection,
        (number(connection.sock.fileno()), end_of_file(peer)),
        release=connection.close,
        say="connection.close",
    )


@case(SERVERS, "`http.client.HTTPResponse`")
def http_response(place: Place) -> Trial:
    sock, peer = map(place.enter_context, socket.socketpair())
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody")
    response = http.client.HTTPResponse(sock)
    response.begin()
    sock.close()
    place.callback(response.close)
    return Trial(
        response,
        (number(response.fileno()), end_of_file(peer)),
        release=response.close,
        say="response.close",
    )


@case(SERVERS, "`xmlrpc.client.ServerProxy`")
def xmlrpc_client(place: Place) -> Trial:
    listener = place.enter_context(socket.create_server(LOOPBACK))
    host, port = listener.getsockname()
    proxy = xmlrpc.client.ServerProxy(f"http://{host}:{port}")
    connection = proxy("transport").make_connection(f"{host}:{port}")
    connection.connect()
    peer = place.enter_context(listener.accept()[0])
    close = proxy("close")
    place.callback(close)
    return Trial(
        proxy,
        (number(connection.sock.fileno()), end_of_file(peer)),
        release=close,
        say='proxy("close")',
    )


# -- selectors ---------------------------------------------------------------------


@case(SELECTORS, "`select.epoll`")
def epoll(place: Place) -> Trial:
    made = select.epoll()
    place.callback(made.close)
    return Trial(made, (number(made.fileno()),), release=made.close, say="epoll.close")


@case(SELECTORS, "`select.poll`, which holds nothing")
def poll(_: Place) -> Trial:
    return Trial(select.poll())


@case(SELECTORS, "`selectors.EpollSelector`")
def epoll_selector(place: Place) -> Trial:
    made = place.enter_context(selectors.EpollSelector())
    return Trial(made, (number(made.fileno()),), release=made.close, say="selector.close")


@case(SELECTORS, "`selectors.PollSelector`")
def poll_selector(place: Place) -> Trial:
    return _selector(place, selectors.PollSelector())


@case(SELECTORS, "`selectors.SelectSelector`")
def select_selector(place: Place) -> Trial:
    return _selector(place, selectors.SelectSelector())


def _selector(place: Place, made: selectors.BaseSelector) -> Trial:
    place.enter_context(made)
    mine, _ = map(place.enter_context, socket.socketpair())
    made.register(mine, selectors.EVENT_READ)
    return Trial(
        made,
        (works(lambda: made.get_key(mine), "forgets what it polled"),),
        release=made.close,
        say="selector.close",
    )
