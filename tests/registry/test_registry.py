"""The registry on a real SQLite store: runs, models without pickle, an alias that moves exactly once per verdict."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.shelf import SPEC, bundle, proof, registered, verdict
from vqbet import registry
from vqbet.contract import RegistryError
from vqbet.registry import connection, models, promotion, runs


def promote(version: int, candidate: str, champion: str = "", evidence: str = "e1") -> registry.LedgerEntry:
    about = verdict(candidate, champion)
    return registry.promote(
        "tiny", version, verdict=about, evidence=proof(evidence), who="ann", why="the gate's verdict"
    )


class TestCheck:
    def test_a_good_store_and_a_new_one_pass(self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        registry.check()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
        registry.check()

    def test_damage_is_named(self, home: Path) -> None:
        store = home / "mlflow.db"
        content = bytearray(store.read_bytes())
        content[8192:40960] = os.urandom(40960 - 8192)
        store.write_bytes(content)
        with pytest.raises(RegistryError, match=r"mlflow\.db.*(damaged|malformed).*restore"):
            registry.check()

    def test_a_file_that_is_no_database(self, home: Path) -> None:
        (home / "mlflow.db").write_bytes(b"not a database, and long enough to be read as one" * 100)
        with pytest.raises(RegistryError, match=r"mlflow\.db: .*file is not a database; restore a copy"):
            registry.check()

    def test_a_place_where_nothing_can_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        for folder in (tmp_path / "file", Path("/proc")):  # a folder that is a file; one that even root cannot write
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
            with pytest.raises(RegistryError, match=r"(cannot be made|opened for writing)"):
                registry.check()

    def test_a_read_only_store(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        connect = sqlite3.connect

        def read_only(path: Path, **options: Any) -> sqlite3.Connection:
            return connect(f"file:{str(path).replace(' ', '%20')}?mode=ro", uri=True, **options)

        monkeypatch.setattr(connection.sqlite3, "connect", read_only)
        with pytest.raises(RegistryError, match=r"readonly database; give this user write access"):
            registry.check()

    @pytest.mark.parametrize("address", ["", "mlruns", "file:///tmp/mlruns", "postgresql://u:secret@h/db"])
    def test_addresses_that_are_none(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI: expected sqlite:///"):
            registry.check()

    def test_a_server_that_is_not_there_is_reported_within_seconds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
        started = time.monotonic()
        with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:9: no MLflow server answers: .*unset") as caught:
            registry.check()
        assert time.monotonic() - started < 60  # MLflow's own client tries for minutes
        assert "secret" not in str(caught.value)

    def test_something_else_that_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with served(b"<html>") as address:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            with pytest.raises(RegistryError, match="expected an MLflow server"):
                registry.check()

    def test_a_healthy_server_passes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with served(b"OK") as address:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            registry.check()


class served:
    """A server on loopback that answers every GET with one body."""

    def __init__(self, body: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        self._server = HTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class TestRun:
    PARAMS = {"steps": 5, "health": {"max_mean_error": 0.1}, "baselines": ["noop"]}  # noqa: RUF012

    @pytest.mark.slow
    def test_everything_arrives(self, home: Path, tmp_path: Path) -> None:
        (tmp_path / "m.json").write_text("{}")
        (tmp_path / "films").mkdir()
        (tmp_path / "films" / "a.webm").write_bytes(b"x")
        tags = {"data_version": "d1.dir", "git_commit": "abc"}
        with registry.run("tiny", "prior", params=self.PARAMS, tags=tags) as run:
            for step in range(2500):
                run.track(step, {"loss": 1 / (step + 1)})
            run.finish({"success": 0.75}, [tmp_path / "m.json", tmp_path / "films"])
        client = connection.client()
        found = client.get_run(run.id)
        assert found.info.status == "FINISHED"
        assert found.data.params == {"steps": "5", "health.max_mean_error": "0.1", "baselines": "['noop']"}
        assert found.data.metrics == {"loss": 1 / 2500, "success": 0.75}
        assert found.data.tags["stage"] == "prior"
        assert found.data.tags["mlflow.source.git.commit"] == "abc"
        assert {item.path for item in client.list_artifacts(run.id)} == {"m.json", "films"}
        assert len(client.get_metric_history(run.id, "loss")) == 2500
        assert found.info.artifact_uri.startswith(str(home / "mlartifacts" / "tiny"))
        assert not (Path.cwd() / "mlruns").exists()
        assert not (Path.cwd() / "mlflow.db").exists()

    @pytest.mark.slow
    def test_tracking_is_cheap(self, home: Path) -> None:
        with registry.run("tiny", "prior", params={}, tags={}) as run:
            started = time.process_time()
            for step in range(5000):
                run.track(step, {"loss": 1.0, "lr": 0.1})
            assert (time.process_time() - started) / 5000 < 2e-3

    @pytest.mark.parametrize(
        ("error", "status"), [(RuntimeError, "FAILED"), (SystemExit, "FAILED"), (KeyboardInterrupt, "KILLED")]
    )
    def test_how_it_ended_is_kept_with_what_was_measured(
        self, home: Path, error: type[BaseException], status: str
    ) -> None:
        opened = []

        def stage() -> None:
            with registry.run("tiny", "prior", params={}, tags={}) as run:
                opened.append(run.id)
                run.track(7, {"loss": 2.0})
                raise error

        with pytest.raises(error):
            stage()
        found = connection.client().get_run(opened[0])
        assert (found.info.status, found.data.metrics) == (status, {"loss": 2.0})

    def test_a_registry_that_goes_away_stops_no_training_but_is_told_at_the_end(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trained = []

        def stage() -> None:
            with registry.run("tiny", "prior", params={}, tags={}) as run:
                monkeypatch.setattr(run, "_client", Gone())
                for step in range(3):
                    run.track(step, {"loss": 1.0})
                    trained.append(step)

        monkeypatch.setattr(runs, "FLUSH_S", 0.0)
        with pytest.raises(RegistryError, match=r"cannot take 3 metrics of run .*gone"):
            stage()
        assert trained == [0, 1, 2]

    def test_the_bodys_error_is_shown_even_if_the_registry_is_gone(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stage() -> None:
            with registry.run("tiny", "prior", params={}, tags={}) as run:
                monkeypatch.setattr(run, "_client", Gone())
                run.track(0, {"loss": 1.0})
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            stage()


class Gone:
    """A client whose server went away."""

    def log_batch(self, *_: Any, **__: Any) -> None:
        raise ConnectionError("gone")

    set_terminated = log_batch


class TestModels:
    def test_round_trip_of_our_files_only(self, home: Path, tmp_path: Path) -> None:
        [(version, digest)] = registered(tmp_path, "one")
        found = registry.resolve(f"tiny/{version}")
        assert (found.name, found.version, found.digest, found.aliases) == ("tiny", 1, digest, ())
        got = registry.download(found, tmp_path / "got")
        assert {path.name: path.read_bytes() for path in got.iterdir()} == {
            path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()
        }
        assert not list(tmp_path.glob(".got*"))

    def test_no_pickle_and_our_flavour_alone(self, home: Path, tmp_path: Path) -> None:
        from mlflow.models import Model

        registered(tmp_path, "one")
        files = [path for path in (home / "mlartifacts").rglob("*") if path.is_file()]
        assert {path.name for path in files} == {"bundle.json", "policy.safetensors", "MLmodel"}
        (described,) = [Model.load(str(path)) for path in files if path.name == "MLmodel"]
        assert set(described.flavors) == {"vqbet"}
        assert described.signature.inputs.to_dict()[0]["tensor-spec"] == {"dtype": "float32", "shape": (-1, 3)}
        assert described.signature.outputs.to_dict()[0]["tensor-spec"] == {"dtype": "float32", "shape": (-1, 2)}

    def test_pyfunc_refuses_it(self, home: Path, tmp_path: Path) -> None:
        import mlflow.pyfunc

        registered(tmp_path, "one")
        with pytest.raises(Exception, match=r"does not have the .python_function. flavor"):
            mlflow.pyfunc.load_model("models:/tiny/1")

    def test_same_digest_same_version_with_fresh_tags(self, home: Path, tmp_path: Path) -> None:
        [(first, digest), (second, _)] = registered(tmp_path, "one", "two")
        again = registry.register("tiny", tmp_path / "one", tags={"digest": digest, "verdict": "HOLD"}, spec=SPEC)
        assert (first, second, again) == (1, 2, 1)
        assert registry.resolve("tiny/1").tags["verdict"] == "HOLD"
        assert registry.resolve("tiny/1").tags["data_version"] == "d1.dir"

    def test_a_tokenizer_has_its_own_name_and_signature(self, home: Path, tmp_path: Path) -> None:
        signature = registry.Signature({"action": ("float32", (-1, 4, 2))}, {"code": ("int64", (-1, 2))})
        digest = bundle(tmp_path / "t", "t")
        registry.register("tiny-tokenizer", tmp_path / "t", tags={"digest": digest}, spec=SPEC, signature=signature)
        assert registry.resolve("tiny-tokenizer/1").digest == digest

    def test_aliases(self, home: Path, tmp_path: Path) -> None:
        registered(tmp_path, "one", "two")
        registry.set_candidate("tiny", 2)
        assert registry.resolve("tiny@candidate").version == 2
        assert registry.resolve("tiny/2").aliases == ("candidate",)
        assert registry.champion("tiny") is None
        with pytest.raises(RegistryError, match="tiny/9: no such version"):
            registry.set_candidate("tiny", 9)

    def test_what_is_not_there_is_answered_with_what_is(self, home: Path, tmp_path: Path) -> None:
        with pytest.raises(RegistryError, match="no model at all; run the pipeline once"):
            registry.resolve("tiny@champion")
        registered(tmp_path, "one", "two")
        registry.set_candidate("tiny", 1)
        with pytest.raises(RegistryError, match=r"there is: tiny/2, tiny/1 \(@candidate\)"):
            registry.resolve("tiny@champion")
        with pytest.raises(RegistryError, match="there is: models tiny"):
            registry.resolve("other/1")
        for odd in ("tiny", "tiny@", "tiny/x", "tiny@a/b", "it's/1"):
            with pytest.raises(RegistryError):
                registry.resolve(odd)

    def test_what_cannot_be_registered(self, home: Path, tmp_path: Path) -> None:
        with pytest.raises(RegistryError, match="expected the folder of a bundle"):
            registry.register("tiny", tmp_path / "none", tags={"digest": "x"}, spec=SPEC)
        with pytest.raises(RegistryError, match="expected the bundle's digest"):
            registry.register("tiny", tmp_path, tags={}, spec=SPEC)

    def test_lost_files_are_reported_and_leave_nothing(self, home: Path, tmp_path: Path) -> None:
        import shutil

        registered(tmp_path, "one")
        shutil.rmtree(home / "mlartifacts")
        with pytest.raises(RegistryError, match="tiny/1"):
            registry.download(registry.resolve("tiny/1"), tmp_path / "got")
        assert not (tmp_path / "got").exists()

    def test_a_folder_in_use_is_not_overwritten(self, home: Path, tmp_path: Path) -> None:
        registered(tmp_path, "one")
        with pytest.raises(RegistryError, match="expected a new or empty folder"):
            registry.download(registry.resolve("tiny/1"), tmp_path / "one")

    def test_many_versions_are_all_seen(self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        registered(tmp_path, "one", "two", "three")
        client = connection.client()
        search = client.search_model_versions

        def paged(query: str, max_results: int, page_token: str | None) -> Any:
            return search(query, max_results=2, page_token=page_token)

        monkeypatch.setattr(client, "search_model_versions", paged)
        assert [version.version for version in models._versions(client, "tiny")] == [3, 2, 1]


class TestPromotion:
    def test_first_champion_then_the_next(self, home: Path, tmp_path: Path) -> None:
        (one, first), (two, second) = registered(tmp_path, "one", "two")
        entry = promote(one, first)
        assert (entry.seq, entry.version, entry.previous_version, entry.prev) == (1, one, 0, "")
        assert (entry.who, entry.why, entry.evidence) == ("ann", "the gate's verdict", proof("e1"))
        later = promote(two, second, first, "e2")
        assert (later.seq, later.previous_digest, later.prev) == (2, first, entry.hash)
        assert registry.resolve("tiny@champion").version == two
        assert registry.history("tiny") == [entry, later]

    def test_again_is_the_same_entry(self, home: Path, tmp_path: Path) -> None:
        [(one, digest)] = registered(tmp_path, "one")
        assert promote(one, digest) == promote(one, digest)
        assert len(registry.history("tiny")) == 1

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"outcome": "HOLD"}, "the verdict is 'HOLD', only PROMOTE"),
            ({"outcome": None}, "only PROMOTE"),
            ({"candidate": "f" * 64}, "about candidate ffffffffffff"),
            ({"candidate": ""}, "about candidate none"),
            ({"champion": "f" * 64}, "about champion ffffffffffff"),
            ({"champion": None}, "about champion none"),
        ],
    )
    def test_a_verdict_about_something_else(
        self, home: Path, tmp_path: Path, change: dict[str, Any], says: str
    ) -> None:
        [(one, digest)] = registered(tmp_path, "one")
        with pytest.raises(RegistryError, match=says):
            registry.promote("tiny", one, verdict=verdict(digest) | change, evidence=proof("e"), who="ann", why="w")
        assert registry.champion("tiny") is None
        assert registry.history("tiny") == []

    @pytest.mark.slow
    def test_compare_and_set(self, home: Path, tmp_path: Path) -> None:
        (one, first), (two, second), (three, third) = registered(tmp_path, "one", "two", "three")
        promote(one, first)
        promote(two, second, first, "e2")
        with pytest.raises(RegistryError, match="the verdict is about champion"):
            promote(three, third, first, "e3")
        assert registry.resolve("tiny@champion").version == two

    @pytest.mark.slow
    def test_rollback_and_the_verdict_it_spent(self, home: Path, tmp_path: Path) -> None:
        (one, first), (two, second) = registered(tmp_path, "one", "two")
        promote(one, first)
        promote(two, second, first, "e2")
        entry = registry.rollback("tiny", why="it dropped a cup", who="bob")
        assert (entry.action, entry.version, entry.previous_version) == ("rollback", one, two)
        assert registry.resolve("tiny@champion").version == one
        with pytest.raises(RegistryError, match=r"this verdict was used by entry 2 .*undone by a rollback"):
            promote(two, second, first, "e2")
        assert promote(two, second, first, "e3").seq == 4
        registry.rollback("tiny", why="again", who="bob")
        with pytest.raises(RegistryError, match="no champion to go back to; the champion is version 1"):
            registry.rollback("tiny", why="once more", who="bob")
        with pytest.raises(RegistryError, match="needs a reason"):
            registry.rollback("tiny", why=" ", who="bob")

    def test_an_alias_moved_by_hand_is_noticed_and_put_back(self, home: Path, tmp_path: Path) -> None:
        (one, first), (two, second) = registered(tmp_path, "one", "two")
        promote(one, first)
        connection.client().set_registered_model_alias("tiny", "champion", str(two))
        with pytest.raises(RegistryError, match=r"champion is version 2, entry 1 .* says version 1.*repair"):
            promote(two, second, first, "e2")
        repaired = registry.repair("tiny")
        assert repaired is not None
        assert repaired.version == one
        assert registry.resolve("tiny@champion").version == one
        assert registry.repair("tiny") is None

    def test_a_champion_without_ledger_is_refused(self, home: Path, tmp_path: Path) -> None:
        [(one, digest)] = registered(tmp_path, "one")
        connection.client().set_registered_model_alias("tiny", "champion", str(one))
        for act in (lambda: promote(one, digest), lambda: registry.repair("tiny")):
            with pytest.raises(RegistryError, match="version 1 is champion without a ledger entry"):
                act()

    def test_a_lost_or_foreign_ledger_is_refused(self, home: Path, tmp_path: Path) -> None:
        (one, first), (two, second) = registered(tmp_path, "one", "two")
        promote(one, first)
        promote(two, second, first, "e2")
        with closing(sqlite3.connect(home / "ledger.db")) as database, database:
            database.execute("DELETE FROM vqbet_ledger WHERE number = 2")
        with pytest.raises(RegistryError, match="entries are missing, or another machine's ledger"):
            registry.rollback("tiny", why="w", who="bob")

    def test_show(self, home: Path, tmp_path: Path) -> None:
        digest = bundle(tmp_path / "b", "b")
        with registry.run("tiny", "register", params={}, tags={}) as run:
            run.finish({"success": 0.75}, [])
        tags = {"digest": digest, "data_version": "d1.dir", "verdict": "PROMOTE: 3 of 4", "tokenizer": "t0"}
        version = registry.register("tiny", tmp_path / "b", tags=tags, spec=SPEC, run_id=run.id)
        promote(version, digest)
        rows = registry.show("tiny@champion")
        assert rows["model"] == "tiny/1"
        assert rows["aliases"] == "champion"
        assert rows["data version"] == "d1.dir"
        assert rows["verdict"] == "PROMOTE: 3 of 4"
        assert rows["tokenizer"] == "t0"
        assert rows["success"] == "0.75"
        assert f"by ann as the first: the gate's verdict; evidence {proof('e1')[:12]}; unsigned" in rows["ledger 1"]
        assert run.id in rows["run"]
        assert all(isinstance(value, str) for value in rows.values())


class TestReaders:
    """Whoever asks for the champion is answered by the ledger, or not at all."""

    @pytest.fixture
    def story(self, home: Path, tmp_path: Path) -> list[tuple[int, str]]:
        """Two versions, the first is champion."""
        found = registered(tmp_path, "one", "two")
        promote(*found[0])
        return found

    @pytest.mark.slow
    def test_an_alias_that_was_moved_is_not_followed(self, story: list[tuple[int, str]]) -> None:
        connection.client().set_registered_model_alias("tiny", "champion", "2")
        for ask in (lambda: registry.champion("tiny"), lambda: registry.resolve("tiny@champion")):
            with pytest.raises(
                RegistryError, match=r"tiny@champion is version 2, entry 1 .* says version 1: the alias"
            ):
                ask()
        rows = registry.show("tiny/2")
        assert "the champion is version 2, entry 1 of the ledger says version 1" in rows["NOT AS IT SHOULD BE"]
        registry.repair("tiny")
        assert registry.resolve("tiny@champion").version == 1
        assert "NOT AS IT SHOULD BE" not in registry.show("tiny/2")

    @pytest.mark.slow
    def test_an_alias_that_was_removed_is_not_no_champion(self, story: list[tuple[int, str]]) -> None:
        connection.client().delete_registered_model_alias("tiny", "champion")
        with pytest.raises(RegistryError, match="tiny@champion is none, entry 1"):
            registry.champion("tiny")

    def test_an_empty_ledger_beside_a_registry_with_a_head_is_refused(
        self, story: list[tuple[int, str]], home: Path
    ) -> None:
        with closing(sqlite3.connect(home / "ledger.db")) as database, database:
            database.execute("DELETE FROM vqbet_ledger")
        connection.client().delete_registered_model_alias("tiny", "champion")
        with pytest.raises(RegistryError, match="entries are missing, or another machine's ledger"):
            registry.champion("tiny")

    @pytest.mark.slow
    def test_a_version_that_was_replaced_is_not_the_champion(self, story: list[tuple[int, str]]) -> None:
        connection.client().set_model_version_tag("tiny", "1", "digest", "f" * 64)
        with pytest.raises(RegistryError, match=r"tiny@champion is version 1, entry 1 .* says version 1"):
            registry.champion("tiny")

    def test_a_promotion_under_way_elsewhere_is_waited_for(
        self, story: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The ledger is ahead for as long as the other machine needs to move the alias."""
        (_, first), (two, second) = story
        client = connection.client()

        def die(*_: object) -> None:
            raise Died

        with monkeypatch.context() as patch:
            patch.setattr(client, "set_registered_model_alias", die)
            with pytest.raises(Died):
                promote(two, second, first, "e2")
        looks = iter([None, None, lambda: client.set_registered_model_alias("tiny", "champion", str(two))])
        monkeypatch.setattr(promotion.time, "sleep", lambda _: (next(looks, None) or (lambda: None))())
        found = registry.champion("tiny")
        assert found is not None
        assert found.version == two


class Died(BaseException):
    """Stands for a kill where what is on disk is all that counts: the ledger is synced, the store transactional."""


class TestCrash:
    @pytest.fixture
    def story(self, home: Path, tmp_path: Path) -> list[tuple[int, str]]:
        """Three versions, the first is champion."""
        found = registered(tmp_path, "one", "two", "three")
        promote(*found[0])
        return found

    @pytest.mark.slow
    def test_killed_between_ledger_and_alias(self, story: list[tuple[int, str]]) -> None:
        (one, first), (two, second), _ = story
        assert in_children(die_promoting, [(os.environ["MLFLOW_TRACKING_URI"], two, second, first)]) == [-9]
        assert [entry.version for entry in registry.history("tiny")] == [one, two]
        with pytest.raises(
            RegistryError, match=r"tiny@champion is version 1, entry 2 .* says version 2.*audit tiny --re"
        ):
            registry.resolve("tiny@champion")
        assert registry.repair("tiny") == registry.history("tiny")[-1]
        assert registry.resolve("tiny@champion").version == two

    @pytest.mark.slow
    @pytest.mark.parametrize("step", ["set_registered_model_alias", "set_registered_model_tag"])
    @pytest.mark.parametrize("heal", ["promote", "promote again", "rollback", "repair"])
    def test_whatever_comes_next_completes_it(
        self, story: list[tuple[int, str]], step: str, heal: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (_, first), (two, second), (three, third) = story

        def die(*_: object) -> None:
            raise Died

        with monkeypatch.context() as patch:
            patch.setattr(connection.client(), step, die)
            with pytest.raises(Died):
                promote(two, second, first, "e2")
        if heal == "promote":
            assert promote(three, third, second, "e3").seq == 3
        elif heal == "promote again":
            assert promote(two, second, first, "e2").seq == 2
        elif heal == "rollback":
            assert registry.rollback("tiny", why="w", who="bob").seq == 3
        else:
            assert registry.repair("tiny") is not None
        last = registry.history("tiny")[-1]
        assert registry.resolve("tiny@champion").version == last.version
        assert models.model_tags("tiny")[promotion.HEAD] == last.hash


class TestRace:
    @pytest.mark.slow
    def test_eight_processes_four_rivals_one_effect(self, home: Path, tmp_path: Path) -> None:
        (one, first), *rivals = registered(tmp_path, "zero", *(f"r{i}" for i in range(4)))
        promote(one, first)
        uri = os.environ["MLFLOW_TRACKING_URI"]
        codes = in_children(promote_in_child, [(uri, version, digest, first) for version, digest in rivals * 2])
        entries = registry.history("tiny")
        assert len(entries) == 2
        winner = registry.resolve("tiny@champion").version
        assert winner == entries[-1].version
        assert codes == [0 if version == winner else 1 for version, _ in rivals * 2]


def children() -> Any:
    """Processes that start with MLflow imported, which costs seconds, and with none of this process's state."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "mlflow.server", "mlflow.store.tracking.sqlalchemy_store"])
    return context


def in_children(target: Any, arguments: list[tuple[Any, ...]]) -> list[int]:
    """Run `target(*arguments[i])` in one process each, all at once; gives their exit codes."""
    started = [children().Process(target=target, args=each) for each in arguments]
    for child in started:
        child.start()
    for child in started:
        child.join(120)
    return [child.exitcode for child in started]


def serve(store: str, artifacts: Path, port: Any) -> None:
    os.environ |= {
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(artifacts),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }
    from mlflow.server import app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True)
    port.send(server.server_port)
    server.serve_forever()


def promote_in_child(uri: str, version: int, candidate: str, champion: str) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        promote(version, candidate, champion, f"e{version}")
    except RegistryError:
        os._exit(1)


def die_promoting(uri: str, version: int, candidate: str, champion: str) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = uri
    connection.client().set_registered_model_alias = lambda *_: os.kill(os.getpid(), 9)
    promote(version, candidate, champion, "e2")


class TestServer:
    @pytest.fixture
    def address(self, home: Path) -> Iterator[str]:
        """MLflow's own server over the store of `home`, on loopback, in a process of its own."""
        here, there = multiprocessing.Pipe()
        server = children().Process(target=serve, args=(os.environ["MLFLOW_TRACKING_URI"], home / "served", there))
        server.start()
        assert here.poll(120)
        yield f"http://127.0.0.1:{here.recv()}"
        server.kill()
        server.join()

    @pytest.mark.slow
    def test_the_same_story_over_http(
        self, home: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("VQBET_HOME", str(tmp_path / "team"))
        registry.check()
        with registry.run("tiny", "prior", params={"lr": 0.1}, tags={}) as run:
            run.track(1, {"loss": 1.0})
            run.finish({"success": 0.5}, [])
        (one, first), (two, second) = registered(tmp_path, "one", "two")
        assert (one, two) == (1, 2)
        promote(one, first)
        promote(two, second, first, "e2")
        assert registry.rollback("tiny", why="w", who="bob").version == 1
        found = registry.resolve("tiny@champion")
        assert (found.version, found.digest, found.aliases) == (1, first, ("champion",))
        assert (registry.download(found, tmp_path / "got") / "bundle.json").read_text() == "one"
        assert registry.show("tiny/1")["model"] == "tiny/1"
        with closing(sqlite3.connect(tmp_path / "team" / "ledger.db")) as database:
            assert database.execute("SELECT count(*) FROM vqbet_ledger").fetchone() == (3,)
        with pytest.raises(RegistryError, match="no such version"):
            registry.resolve("tiny@nobody")
