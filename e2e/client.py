"""Clients of the end-to-end tests, on the real libpq: writers (or none) and a
number of idle sessions. Each fact is one line of JSON on stdout, times in seconds
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
import psycopg2.pool

lock = threading.Lock()

# What the server says of the row, before the row's commit is in its log: who
# it is, the timeline that it writes, and how far it has written.
INSERT = """INSERT INTO writes (writer, seq) VALUES (%s, %s) RETURNING host(inet_server_addr()),
    ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int,
    (pg_current_wal_insert_lsn() - '0/0')::bigint"""


def tell(event, who, **facts):
    line = json.dumps({"event": event, "who": who, **facts}) + "\n"
    with lock:
        sys.stdout.write(line)
        sys.stdout.flush()


class Own:
    """A connection of the writer's own. With keep it stays on it until that is
    lost, as a pool does: a statement that fails is no reason to leave. Without,
    it connects anew for each row."""

    def __init__(self, dsn, keep):
        self.dsn, self.keep, self.conn = dsn, keep, None

    def take(self):
        if self.conn is None:
            self.conn = psycopg2.connect(self.dsn)
            self.conn.autocommit = True
        return self.conn

    def give(self, conn):
        if not self.keep or conn.closed:
            conn.close()
            self.conn = None


class Pool:
    """psycopg2's pool, of which writers take a connection for each row. It
    knows no check of a connection: it hands out what was given back unbroken."""

    def __init__(self, dsn, size):
        self.pool = psycopg2.pool.ThreadedConnectionPool(size, size, dsn)

    def take(self):
        conn = self.pool.getconn()
        conn.autocommit = True
        return conn

    def give(self, conn):
        self.pool.putconn(conn, close=bool(conn.closed))


def write(args, who, source):
    """Inserts numbered rows, for ever."""
    seq = 0
    while True:
        seq += 1
        fact = {"began": time.time(), "seq": seq}
        stage, conn = "connect", None
        try:
            conn = source.take()
            stage, fact["began"] = "write", time.time()
            with conn.cursor() as cursor:
                cursor.execute(INSERT, (args.run + "/" + who, seq))
                fact["node"], fact["tli"], fact["lsn"] = cursor.fetchone()
            tell("ack", who, at=time.time(), **fact)
        except (psycopg2.Error, psycopg2.pool.PoolError) as e:
            text = " ".join(str(e).split())
            code = getattr(e, "pgcode", None) or ""
            tell("fail", who, at=time.time(), stage=stage, code=code, text=text, **fact)
        if conn is not None:
            source.give(conn)
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


class Asker:
    """A line on stdin asks every sleeper one question."""

    def __init__(self):
        self.number, self.changed = 0, threading.Condition()

    def run(self):
        for _ in sys.stdin:
            with self.changed:
                self.number += 1


def sleep(args, who, asker):
    """A session that does nothing, as those that a pool keeps in reserve: it is
    opened again when it has ended, and when asked it says where it leads."""
    answered = 0
    while True:
        began = time.time()
        try:
            conn = psycopg2.connect(args.dsn)
            conn.autocommit = True
        except psycopg2.Error as e:
            text = " ".join(str(e).split())
            tell("fail", who, began=began, at=time.time(), stage="connect", code=e.pgcode or "", text=text)
            time.sleep(args.pause)
            continue
        tell("idle", who, at=time.time(), number=1)
        while not conn.closed:
            if select.select([conn], [], [], 0.2)[0]:  # an end, or PostgreSQL's last word
                break
            if asker.number == answered:
                continue
            answered = asker.number
            try:
                with conn.cursor() as cursor:
                    cursor.execute("SELECT host(inet_server_addr()), pg_is_in_recovery()")
                    node, recovery = cursor.fetchone()
                tell("answer", who, at=time.time(), seq=answered, node=node, recovery=recovery)
            except psycopg2.Error:
                break
        conn.close()
        tell("ended", who, at=time.time())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--run", required=True, help="begins the writers' names in the table")
    parser.add_argument("--idle", type=int, default=20, help="sessions that are opened once")
    parser.add_argument("--sleepers", type=int, default=0, help="idle sessions that are opened again")
    parser.add_argument("--keep", type=int, default=1, help="writers that keep their connection")
    parser.add_argument("--anew", type=int, default=1, help="writers that connect anew for each row")
    parser.add_argument("--pool", type=int, default=0, help="writers that share a pool")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two writes of a writer")
    args = parser.parse_args()

    threads = []

    def start(kind, number, target, *rest):
        for n in range(number):
            who = kind if n == 0 else "%s-%d" % (kind, n + 1)
            threads.append(threading.Thread(target=target, args=(args, who, *[r() for r in rest])))

    if args.idle:
        threads.append(threading.Thread(target=idle, args=(args, args.idle)))
    asker, pool = Asker(), Pool(args.dsn, args.pool) if args.pool else None
    start("keep", args.keep, write, lambda: Own(args.dsn, True))
    start("anew", args.anew, write, lambda: Own(args.dsn, False))
    start("pool", args.pool, write, lambda: pool)
    start("sleeper", args.sleepers, sleep, lambda: asker)
    if args.sleepers:
        threads.append(threading.Thread(target=asker.run))
    for t in threads:
        t.daemon = True
        t.start()
    for t in threads:
        t.join()


main()
