"""Stands in for osqueryd: the extension manager, the scheduler's bookkeeping and SQL, on osquery's own Python bindings.

usage: manager.py SOCKET DATABASE

Serves the manager's socket and obeys one JSON command a line on stdin, answering one JSON line on stdout. What osqueryd
keeps in its database (counters, timestamps, the query that runs) is kept in DATABASE, so that a new process on the same
file is osqueryd's next worker; a missing file is an osquery that was never here, with a new instance_id.

Tables with rows (see `tables.py`) are put there and taken away by commands.
"""

import contextlib
import glob
import json
import logging
import os
import re
import sqlite3
import sys
import threading
import time
import uuid as uuids

from osquery.extensions import Extension, ExtensionManager
from osquery.extensions.ttypes import ExtensionResponse, ExtensionStatus, InternalExtensionInfo, InternalOptionInfo
import tables
from thrift.protocol import TBinaryProtocol
from thrift.server import TServer
from thrift.transport import TSocket, TTransport

CORE_TABLES = ["osquery_info", "osquery_registry", "processes", "users"]


class Database:
    """osquery's key-value store, written through."""

    def __init__(self, path):
        self.path = path
        self.lock = threading.Lock()
        try:
            with open(path) as file:
                self.values = json.load(file)
        except FileNotFoundError:
            self.values = {}
        if self.get("instance", "id") is None:
            self.put("instance", "id", str(uuids.uuid4()))

    def get(self, domain, key):
        with self.lock:
            return self.values.get(domain + "/" + key)

    def put(self, domain, key, value):
        with self.lock:
            self.values[domain + "/" + key] = value
            with open(self.path + ".new", "w") as file:
                json.dump(self.values, file)
            os.replace(self.path + ".new", self.path)


class Manager(ExtensionManager.Iface):
    def __init__(self, socket, database):
        self.socket = socket
        self.database = database
        self.core_tables = list(CORE_TABLES)
        self.lock = threading.Lock()
        self.tables = {}  # name: tables.Table
        self.registered = {}  # uuid: (info, {table: routes})
        self.next_uuid = 41  # osquery's first ones are the same at every start

    # --- what extensions call ---

    def ping(self):
        return ExtensionStatus(0, "pong", 0)

    def call(self, registry, item, request):
        if registry == "database" and request.get("action") == "get":
            value = self.database.get(request["domain"], request["key"])
            if value is None:
                return ExtensionResponse(ExtensionStatus(1, "NotFound", 0), [])
            return ExtensionResponse(ExtensionStatus(0, "OK", 0), [{"v": value}])
        if registry == "table" and request.get("action") == "columns" and item in self.tables:
            return ExtensionResponse(ExtensionStatus(0, "OK", 0), self.tables[item].routes())
        if registry == "logger" and "string" in request:
            return ExtensionResponse(self.log(request["string"]), [])
        if registry == "config":
            return self.config(item, request)
        return ExtensionResponse(ExtensionStatus(1, "no such plugin", 0), [])

    def log(self, line):
        """The logger plugin: takes a line, refuses it, or hangs, as it was told; poison it never takes."""
        while (mode := self.database.get("logger", "mode")) == "hang":
            time.sleep(0.01)
        if mode == "refuse" or "poison" in line:
            return ExtensionStatus(1, "the log is full", 0)
        with self.lock:
            with open(self.database.path + ".log", "a") as file:
                file.write("%d %s\n" % (time.time_ns(), line))
        return ExtensionStatus(0, "OK", 0)

    def config(self, item, request):
        """The config plugin: hands out what it was told, and notes what it is given."""
        action, told = request.get("action"), []
        if action == "genConfig":
            told = [{"main": self.database.get("config", "main") or "{}"}]
        elif action == "genPack":
            told = [{request["name"]: self.database.get("config", request["value"]) or "{}"}]
        elif action == "update" and item == "update":
            updates = json.loads(self.database.get("config", "updates") or "[]")
            self.database.put("config", "updates", json.dumps(updates + [{request["source"]: request["data"]}]))
        else:
            return ExtensionResponse(ExtensionStatus(1, "no such action", 0), [])
        return ExtensionResponse(ExtensionStatus(0, "OK", 0), told)

    def extensions(self):
        with self.lock:
            return {u: info for u, (info, _) in self.registered.items()}

    def options(self):
        flags = {"extensions_socket": self.socket, "host_identifier": "hostname", "logger_plugin": "filesystem"}
        flags.update(json.loads(self.database.get("flags", "changed") or "{}"))
        return {name: InternalOptionInfo(value, "", "string") for name, value in flags.items()}

    def registerExtension(self, info, registry):
        tables = registry.get("table", {})
        with self.lock:
            if any(other.name == info.name for other, _ in self.registered.values()):
                return ExtensionStatus(1, "Duplicate extension registered", 0)
            if clash := sorted(set(tables) & set(self.core_tables)):
                return ExtensionStatus(1, "Failed adding registry: Duplicate registry item exists: " + clash[0], 0)
            uuid = self.next_uuid
            self.next_uuid += 1
            self.registered[uuid] = (info, tables)
        threading.Thread(target=self.watch, args=(uuid,), daemon=True).start()
        return ExtensionStatus(0, "OK", uuid)

    def deregisterExtension(self, uuid):
        with self.lock:
            if self.registered.pop(uuid, None) is None:
                return ExtensionStatus(1, "No extension UUID found", 0)
        return ExtensionStatus(0, "OK", 0)

    def query(self, sql):
        try:
            with contextlib.closing(sqlite3.connect(":memory:")) as db:
                db.row_factory = sqlite3.Row
                db.execute("CREATE TABLE osquery_registry (registry, name, owner_uuid, internal, active)")
                with self.lock:
                    there = self.core_tables + list(self.tables)
                db.executemany("INSERT INTO osquery_registry VALUES ('table', ?, 0, 0, 1)", [(name,) for name in there])
                db.execute("CREATE TABLE osquery_info (instance_id, uuid, config_hash)")
                db.execute("INSERT INTO osquery_info VALUES (?, 'a-uuid', 'a-hash')", (self.database.get("instance", "id"),))
                db.execute("CREATE TABLE osquery_packs (name, active)")
                config = (self.database.get("config", "main") or "{}").split("\n#")[0]
                packs = json.loads(config).get("packs", {})
                db.executemany("INSERT INTO osquery_packs VALUES (?, ?)", [(name, name != "inactive") for name in packs])
                for name in set(re.findall(r"\w+", sql)) & set(self.tables):
                    self.fill(db, name)
                rows = [dict(row) for row in db.execute(sql)]
        except (sqlite3.Error, RuntimeError) as error:
            return ExtensionResponse(ExtensionStatus(1, str(error), 0), [])
        return ExtensionResponse(ExtensionStatus(0, "OK", 0), [{k: str(v) for k, v in row.items()} for row in rows])

    def getQueryColumns(self, sql):
        return ExtensionResponse(ExtensionStatus(1, "not here", 0), [])

    def fill(self, db, name):
        """Makes a table of SQLite of one of ours."""
        table = self.tables[name]
        table.asked += 1
        time.sleep(table.pause)
        db.execute('CREATE TABLE "%s" (%s)' % (name, ", ".join('"%s" %s' % (column, kind) for column, kind, _ in table.columns)))
        holes = ", ".join("?" * len(table.columns))
        db.executemany('INSERT INTO "%s" VALUES (%s)' % (name, holes), table.rows())

    # --- what osqueryd does ---

    def open(self):
        """Begins to serve the manager's socket."""
        server = TServer.TThreadedServer(
            ExtensionManager.Processor(self),
            TSocket.TServerSocket(unix_socket=self.socket),
            TTransport.TBufferedTransportFactory(),
            TBinaryProtocol.TBinaryProtocolFactory(),
            daemon=True,
        )
        threading.Thread(target=server.serve, daemon=True).start()
        while not os.path.exists(self.socket):
            time.sleep(0.01)

    def extension(self, uuid):
        """A connection to an extension, as core makes one for each call."""
        socket = TSocket.TSocket(unix_socket="%s.%d" % (self.socket, uuid))
        socket.setTimeout(20000)
        transport = TTransport.TBufferedTransport(socket)
        transport.open()
        return Extension.Client(TBinaryProtocol.TBinaryProtocol(transport)), transport

    def watch(self, uuid):
        """Pings an extension, and drops it when it fails twice in a row."""
        failures = 0
        deadline = time.monotonic() + 3
        while uuid in self.registered:
            try:
                client, transport = self.extension(uuid)
                try:
                    assert client.ping().code == 0
                finally:
                    transport.close()
                failures = 0
            except Exception:
                failures += 1
                if failures >= 2 and time.monotonic() > deadline:
                    with self.lock:
                        self.registered.pop(uuid, None)
                    return
            time.sleep(0.1)

    def plugin(self, table, request):
        with self.lock:
            uuid = next((u for u, (_, tables) in self.registered.items() if table in tables), None)
        if uuid is None:
            raise LookupError("no extension serves " + table)
        client, transport = self.extension(uuid)
        try:
            return client.call("table", table, request)
        finally:
            transport.close()

    def generate(self, table, context=None):
        request = {"action": "generate"}
        if context is not None:
            request["context"] = json.dumps(context)
        response = self.plugin(table, request)
        if response.status.code != 0:
            raise RuntimeError(response.status.message)
        return response.response

    def sql(self, sql, sources):
        """Asks the tables once each, as a query plan would, and runs the SQL over what they gave."""
        with sqlite3.connect(":memory:") as db:
            db.row_factory = sqlite3.Row
            for source in sources:
                rows = self.generate(source["table"], source.get("context"))
                with self.lock:
                    routes = next(t[source["table"]] for _, t in self.registered.values() if source["table"] in t)
                names = [route["name"] for route in routes if route["id"] == "column"]
                columns = ", ".join('"%s"' % name for name in names)
                db.execute('CREATE TABLE "%s" (%s)' % (source["as"], columns))
                holes = ", ".join("?" * len(names))
                db.executemany('INSERT INTO "%s" VALUES (%s)' % (source["as"], holes), [[row.get(n) for n in names] for row in rows])
            return [dict(row) for row in db.execute(sql)]

    def schedule(self, name, sql, sources, second, die=None):
        """One run of a scheduled query over event tables: `launchQuery` and `addNewEvents` of core."""
        self.database.put("configurations", "executing_query", name)
        self.database.put("configurations", "timestamp." + name, str(second))
        try:
            rows = self.sql(sql, sources)
        except (sqlite3.Error, RuntimeError) as error:
            self.database.put("configurations", "executing_query", "")
            return {"error": str(error)}
        self.database.put("configurations", "executing_query", "")
        if die == "before counting":
            os._exit(9)
        if rows:
            counter = self.database.get("queries", name + "counter")
            self.database.put("queries", name + "counter", str(1 if counter is None else int(counter) + 1))
        if die == "after counting":
            os._exit(9)
        return {"rows": rows}


def obey(manager, command):
    do = command.pop("do")
    if do == "schedule":
        return manager.schedule(**command)
    if do == "generate":
        return {"rows": manager.generate(**command)}
    if do == "plugin":
        response = manager.plugin(**command)
        return {"code": response.status.code, "message": response.status.message, "rows": response.response}
    if do == "extensions":
        return {"extensions": {str(u): info.name for u, info in manager.extensions().items()}}
    if do == "routes":
        return {"routes": {t: rows for _, tables in manager.registered.values() for t, rows in tables.items()}}
    if do == "ping":
        client, transport = manager.extension(command["uuid"])
        started = time.monotonic()
        status = client.ping()
        transport.close()
        return {"code": status.code, "message": status.message, "uuid": status.uuid, "seconds": time.monotonic() - started}
    if do == "shutdown":
        client, transport = manager.extension(command["uuid"])
        client.shutdown()
        transport.close()
        return {}
    if do == "have":
        for name in command["tables"]:
            manager.tables[name] = tables.real(name, command["root"])
        return {}
    if do == "put":
        rows = command["rows"]
        if command["table"] in manager.tables and "columns" not in command:
            manager.tables[command["table"]].rows = lambda: rows
        else:
            manager.tables[command["table"]] = tables.Table(command["columns"], lambda: rows, command.get("attributes", 0))
        return {}
    if do == "pause":
        manager.tables[command["table"]].pause = command["seconds"]
        return {}
    if do == "asked":
        return {"asked": {name: table.asked for name, table in manager.tables.items()}}
    if do == "remove":
        del manager.tables[command["table"]]
        return {}
    if do == "snapshot":
        # What a table has between two instants.
        before = time.time_ns()
        table = manager.tables[command["table"]]
        rows = table.rows()
        return {"before": before, "rows": rows, "after": time.time_ns(), "columns": [name for name, _, _ in table.columns]}
    if do == "retract":
        with manager.lock:
            del manager.registered[command["uuid"]]
        return {}
    if do == "open":
        manager.open()
        return {}
    if do == "extend":
        # Another extension registers; it answers no call.
        with manager.lock:
            manager.registered[command["uuid"]] = (InternalExtensionInfo(command["name"], "1", "5.0.0", "5.0.0"), {})
        return {}
    if do == "forget":
        with manager.lock:
            manager.registered.clear()
        return {}
    if do == "keep":
        manager.database.put(command["domain"], command["key"], command["value"])
        return {}
    if do == "kept":
        return {"value": manager.database.get(command["domain"], command["key"])}
    if do == "run":
        manager.database.put("configurations", "executing_query", command["name"])
        return {}
    raise LookupError("no such command: " + do)


def main():
    logging.disable()  # Thrift logs each attempt to reach a socket that is not there yet
    socket, database = sys.argv[1:3]
    for stale in glob.glob(glob.escape(socket) + "*"):
        os.remove(stale)
    manager = Manager(socket, Database(database))
    manager.database.put("configurations", "executing_query", "")
    for table in sys.argv[3:]:
        manager.core_tables.append(table)
    print(json.dumps({"ready": manager.database.get("instance", "id")}), flush=True)
    for line in sys.stdin:
        try:
            answer = obey(manager, json.loads(line))
        except Exception as error:
            answer = {"failed": "%s: %s" % (type(error).__name__, error)}
        print(json.dumps(answer), flush=True)


main()
