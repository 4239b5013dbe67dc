"""How any job process ends and speaks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_main(body: str) -> tuple[int, list[dict], str]:
    program = (
        "import errno, os, signal, sys\n"
        "from worker.job_process import JobRefused, JobStopped, emit, run\n"
        f"def main(stop):\n    {body}\n"
        "sys.exit(run(main))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False, timeout=60)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        ("pass", 0, None),
        ("raise JobStopped", 75, None),
        ("os.kill(os.getpid(), signal.SIGTERM); stop.check()", 75, None),
        ("raise OSError(errno.ENOSPC, 'full')", 77, "disk_full"),
        ("raise JobRefused('bad', 'it is bad', 'Mend it.')", 78, "bad"),
        ("raise MemoryError", 78, "out_of_memory"),
        ("raise OSError(errno.ENOMEM, 'no memory')", 78, "out_of_memory"),
        ('raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory")', 78, "out_of_memory"),
        ("raise OSError(errno.EIO, 'torn')", 1, None),
        ("raise RuntimeError('another')", 1, None),
        ("raise KeyError('x')", 1, None),
    ],
)
def test_what_main_raises_becomes_the_exit_code_and_the_error_line(body, code, error):
    returned, lines, _ = run_main(body)
    assert returned == code
    assert [line["data"]["code"] for line in lines if line["type"] == "error"] == ([error] if error else [])


def test_only_json_lines_reach_standard_output_and_nan_never_does():
    code, lines, err = run_main("print('chatter', flush=True); emit('progress', {'loss': float('nan')})")
    assert code == 0
    assert lines == [{"type": "progress", "data": {"loss": None}}]
    assert err == "chatter\n"


def test_sigusr1_writes_every_threads_stack_to_standard_error_and_the_job_goes_on():
    code, lines, err = run_main("os.kill(os.getpid(), signal.SIGUSR1); emit('log', {'message': 'on'})")
    assert code == 0
    assert lines == [{"type": "log", "data": {"message": "on"}}]
    assert "Current thread" in err
    assert "in main" in err


def test_the_kernel_takes_a_job_before_what_serves_when_memory_ends():
    code, lines, _ = run_main("emit('log', {'score': int(open('/proc/self/oom_score_adj').read())})")
    assert (code, lines) == (0, [{"type": "log", "data": {"score": 500}}])
