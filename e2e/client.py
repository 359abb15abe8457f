"""Clients of the end-to-end tests, on the real libpq: two writers (or none) and
a number of idle sessions. Each fact is one line of JSON on stdout, times in seconds
since 1970. They run until they are killed."""

import argparse
import json
import os
import select
import socket
import sys
import threading
import time

import psycopg2

lock = threading.Lock()


def tell(event, who, **facts):
    line = json.dumps({"event": event, "who": who, **facts}) + "\n"
    with lock:
        sys.stdout.write(line)
        sys.stdout.flush()


def write(args, who, keep):
    """Inserts numbered rows. With keep it stays on its connection until that is
    lost, as a pool does: a statement that fails is no reason to leave. Without,
    it connects anew for each row."""
    conn, seq = None, 0
    while True:
        seq += 1
        began, stage = time.time(), "write" if conn else "connect"
        fact = {"began": began, "seq": seq}
        try:
            if conn is None:
                conn = psycopg2.connect(args.dsn)
                conn.autocommit = True
                stage = "write"
            with conn.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO writes (writer, seq) VALUES (%s, %s) RETURNING host(inet_server_addr())",
                    (args.run + "/" + who, seq),
                )
                fact["node"] = cursor.fetchone()[0]
            tell("ack", who, at=time.time(), **fact)
        except psycopg2.Error as e:
            text = " ".join(str(e).split())
            tell("fail", who, at=time.time(), stage=stage, code=e.pgcode or "", text=text, **fact)
        if conn is not None and (not keep or conn.closed):
            conn.close()
            conn = None
        time.sleep(args.pause)


def idle(args, number):
    """Opens sessions that do nothing, and tells when each of them ends."""
    conns = [psycopg2.connect(args.dsn) for _ in range(number)]
    poll, socks = select.poll(), {}
    for conn in conns:
        sock = socket.socket(fileno=os.dup(conn.fileno()))
        sock.setblocking(False)
        socks[sock.fileno()] = sock
        poll.register(sock, select.POLLIN)
    tell("idle", "idle", at=time.time(), number=number)
    while socks:
        for fd, _ in poll.poll():
            try:
                ended = not socks[fd].recv(4096)  # PostgreSQL may say a last word first
            except BlockingIOError:
                ended = False
            except OSError:
                ended = True
            if ended:
                poll.unregister(fd)
                socks.pop(fd).close()
                tell("ended", "idle", at=time.time())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--run", required=True, help="begins the writers' names in the table")
    parser.add_argument("--idle", type=int, default=20)
    parser.add_argument("--quiet", action="store_true", help="no writers")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two writes of a writer")
    args = parser.parse_args()
    threads = [threading.Thread(target=idle, args=(args, args.idle))]
    if not args.quiet:
        threads.append(threading.Thread(target=write, args=(args, "keep", True)))
        threads.append(threading.Thread(target=write, args=(args, "anew", False)))
    for t in threads:
        t.daemon = True
        t.start()
    for t in threads:
        t.join()


main()
