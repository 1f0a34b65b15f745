"""The page of runs that train: it follows them, to this machine alone, and changes nothing."""

import http.client
import json
import threading
from contextlib import contextmanager

import pytest
from report_runs import write_report_run

from embedtrain.files.scores import append_scores, read_scores
from embedtrain.run.report.page import serving
from embedtrain.settings.commands import ReportSettings
from embedtrain.types import InputError


@contextmanager
def served(folder):
    with serving(ReportSettings(runs=[str(folder)], port=0)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def folder(tmp_path):
    return write_report_run(tmp_path / "run", tasks=2)


def ask(server, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_it_answers_to_its_own_name_and_only_to_read(plotly, folder):
    with served(folder) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert ask(server)[0] == 200
        assert ask(server, Host=f"localhost:{server.server_port}")[0] == 200
        for name in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", ""):
            assert ask(server, Host=name)[0] == 403
        for path in ("/config.yaml", "/../config.yaml", "/data/", "/%2e%2e/run/config.yaml"):
            assert ask(server, path)[0] == 404
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert ask(server, method=method)[0] == 501
        assert "connect-src 'self'" in ask(server)[1]


def test_the_state_changes_with_the_files_and_the_data_follow(plotly, folder):
    with served(folder) as server:
        state = ask(server, "/state")[1]
        data = json.loads(ask(server, "/data")[1])
        assert (data["state"], data["live"]) == (state, True)
        assert ask(server, "/state")[1] == state
        (folder / ".scores.jsonl.tmp").write_text("half a file")
        assert ask(server, "/state")[1] == state
        (folder / "map").mkdir(exist_ok=True)
        (folder / "map/new.parquet").write_bytes(b"")
        assert ask(server, "/state")[1] != state
        (folder / "map/new.parquet").unlink()
        last = read_scores(folder / "scores.jsonl")[-1]
        append_scores(folder / "scores.jsonl", [last._replace(task="new")])
        now = ask(server, "/state")[1]
        assert now != state
        data = json.loads(ask(server, "/data")[1])
        assert (data["state"], data["runs"][0]["tasks"][-1]["name"]) == (now, "new")


def test_a_page_that_is_open_shows_what_is_new(show, folder):
    with served(folder) as server:
        shown = show(server.address)
        tab = shown.tab
        assert tab.inner_text("#live") == "live"
        last = read_scores(folder / "scores.jsonl")[-1]
        append_scores(folder / "scores.jsonl", [last._replace(task="newcomer")])
        tab.wait_for_selector("#choose-task option:has-text('newcomer')", state="attached")
        assert shown.complaints == []
        assert {address.removeprefix(server.address) for address in shown.requests} == {"", "state", "data"}


def test_a_port_that_is_taken_is_an_error_with_a_cure(plotly, folder):
    with served(folder) as server:
        settings = ReportSettings(runs=[str(folder)], port=server.server_port)
        with pytest.raises(InputError, match="port=0 for a free one"), serving(settings):
            pass
