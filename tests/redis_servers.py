"""Real Redis for tests: servers, a master with Sentinels, a Cluster, all on free loopback ports."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster

START_S = 20
CLUSTER_NODES = 6
SLOTS = 16384
# As few as keep a vote: three of a quorum of two.
SENTINELS = 3


def need(program: str) -> str:
    """The program's path; skips the test where it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed (Debian's package {program})")
    return path


@dataclass
class RedisServer:
    """One redis-server, which tests may stop, freeze and start again on the same port."""

    port: int
    folder: Path
    flags: tuple[str, ...] = ()
    program: str = "redis-server"
    process: subprocess.Popen[bytes] | None = None
    _frozen: bool = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=5)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "conf"
        if not configuration.exists():
            configuration.touch()
        self.process = subprocess.Popen(
            [
                *(need(self.program), str(configuration), "--port", str(self.port)),
                *("--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""),
                *("--appendonly", "no", "--logfile", str(self.folder / "log"), *self.flags),
            ],
            stdin=subprocess.DEVNULL,
        )
        wait_until(self._answers, f"redis on {self.port} answers")

    def kill(self) -> None:
        """SIGKILL: what it held is lost."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._frozen = False

    def freeze(self) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)
        self._frozen = False

    def end(self) -> None:
        """Ends it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return bool(self.client.ping())
        except redis.exceptions.BusyLoadingError:
            return False
        except redis.exceptions.ConnectionError:
            return False


@dataclass
class SentinelGroup:
    """A master, one replica, and Sentinels that promote it within about two seconds."""

    servers: list[RedisServer]
    sentinels: list[RedisServer]
    name: str = "limits"

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.name}"

    @property
    def master(self) -> RedisServer:
        """Who is the master by now, as the Sentinels that can be asked have it."""
        for sentinel in self.sentinels:
            try:
                address = sentinel.client.sentinel_get_master_addr_by_name(self.name)
            except redis.exceptions.ConnectionError:
                continue
            if address is not None:
                return next(s for s in self.servers if s.port == int(address[1]))
        raise AssertionError("no Sentinel knows the master")


@dataclass
class ClusterGroup:
    """Three masters, three replicas."""

    nodes: list[RedisServer] = field(default_factory=list)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def client(self) -> RedisCluster:
        """A client of its own, which fails rather than repeats."""
        return RedisCluster(
            startup_nodes=[ClusterNode("127.0.0.1", node.port) for node in self.nodes],
            decode_responses=True,
            require_full_coverage=False,
        )

    def node_of(self, key: str) -> RedisServer:
        """The master that serves `key`."""
        client = self.client
        try:
            port = client.get_node_from_key(key).port
        finally:
            client.close()
        return next(node for node in self.nodes if node.port == port)

    def move_slot(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Moves one slot with its keys, as `redis-cli --cluster reshard` does."""
        ids = {node.port: node.client.execute_command("CLUSTER MYID") for node in (source, target)}
        target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source.port])
        source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target.port])
        while keys := source.client.execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
            source.client.execute_command(
                "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys
            )
        for node in (target, source):
            node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target.port])


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Waits for servers of ours."""
    end = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < end, f"not within {START_S} s: {what}"
        time.sleep(0.02)


def start_single(stack: ExitStack, port: int, folder: Path, *flags: str) -> RedisServer:
    """A started server that `stack` ends."""
    server = RedisServer(port, folder, flags)
    stack.callback(server.end)
    server.start()
    return server


def start_sentinels(stack: ExitStack, ports: list[int], folder: Path) -> SentinelGroup:
    """A started group; needs two ports and one for each Sentinel."""
    need("redis-sentinel")
    master = start_single(stack, ports[0], folder / "master")
    replica = start_single(
        stack, ports[1], folder / "replica", "--replicaof", "127.0.0.1", str(master.port)
    )
    sentinels = []
    for number, port in enumerate(ports[2:]):
        home = folder / f"sentinel{number}"
        home.mkdir(parents=True)
        (home / "conf").write_text(
            f"sentinel monitor limits 127.0.0.1 {master.port} 2\n"
            "sentinel down-after-milliseconds limits 500\n"
            "sentinel failover-timeout limits 3000\n"
        )
        sentinel = RedisServer(port, home, ("--sentinel",))
        stack.callback(sentinel.end)
        sentinel.start()
        sentinels.append(sentinel)
    group = SentinelGroup([master, replica], sentinels)

    def know_each_other() -> bool:
        states = [sentinel.client.sentinel_master("limits") for sentinel in sentinels]
        return all(
            state["num-slaves"] == 1 and state["num-other-sentinels"] == len(sentinels) - 1
            for state in states
        )

    wait_until(know_each_other, "the Sentinels know the replica and each other")
    return group


def start_cluster(stack: ExitStack, ports: list[int], folder: Path) -> ClusterGroup:
    """A started Cluster; needs two ports a node, the second for the Cluster's own bus."""
    group = ClusterGroup()
    buses = dict(zip(ports[:CLUSTER_NODES], ports[CLUSTER_NODES:], strict=True))
    for port, bus in buses.items():
        flags = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
            *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
            *("--cluster-port", str(bus)),
        )
        group.nodes.append(start_single(stack, port, folder / str(port), *flags))
    first, *others = (node.client for node in group.nodes)
    for port, bus in list(buses.items())[1:]:
        first.execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
    clients = [first, *others]
    wait_until(
        lambda: all(_cluster_info(c)["cluster_known_nodes"] == str(len(clients)) for c in clients),
        "the nodes know each other",
    )
    masters, replicas = clients[: CLUSTER_NODES // 2], clients[CLUSTER_NODES // 2 :]
    for number, (master, replica) in enumerate(zip(masters, replicas, strict=True)):
        begin, end = (SLOTS * n // len(masters) for n in (number, number + 1))
        master.execute_command("CLUSTER ADDSLOTSRANGE", begin, end - 1)
        replica.execute_command("CLUSTER REPLICATE", master.execute_command("CLUSTER MYID"))
    wait_until(
        lambda: (
            all(_cluster_info(client)["cluster_state"] == "ok" for client in clients)
            and all(r.info("replication").get("master_link_status") == "up" for r in replicas)
        ),
        "the Cluster is whole",
    )
    return group


def _cluster_info(client: redis.Redis) -> dict[str, str]:
    answer = client.execute_command("CLUSTER INFO")
    if isinstance(answer, dict):
        return {key: str(value) for key, value in answer.items()}
    return dict(line.split(":", 1) for line in answer.splitlines() if ":" in line)
