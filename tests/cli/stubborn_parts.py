"""Parts of which some do not obey, as `resnetd up` runs its own: `python stubborn_parts.py FOLDER`."""

import sys
from pathlib import Path

from resnetd.parts import Part, Parts

SECONDS = 4.0
OBEYS = 'trap "echo $0 >> $PLACE/order; exit 0" TERM; touch $PLACE/$0; while :; do sleep 0.1; done'
STOPPED = "touch $PLACE/$0; kill -STOP $$"
# It neither hears SIGTERM nor takes its child along: that is in a session of its own, where no signal to a group comes.
DEAF = (
    "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "subprocess.Popen(['sleep', '300'], start_new_session=True); "
    "open(os.environ['PLACE'] + '/fleet', 'w').close(); time.sleep(300)"
)


def main(place: Path) -> None:
    def part(name: str, command: list[str], *leans_on: str, stop_seconds: float) -> Part:
        ready = (place / name).exists
        return Part(name, command, {"PLACE": str(place)}, ready=ready, leans_on=leans_on, stop_seconds=stop_seconds)

    def shell(name: str, script: str, *leans_on: str, stop_seconds: float) -> Part:
        return part(name, ["/bin/sh", "-c", script, name], *leans_on, stop_seconds=stop_seconds)

    def announce() -> bool:
        print("all run", flush=True)
        return True

    parts = [
        shell("redis", OBEYS, stop_seconds=2.0),
        part("fleet", [sys.executable, "-S", "-E", "-c", DEAF], stop_seconds=2.0),
        shell("http", STOPPED, "fleet", "redis", stop_seconds=300.0),
        shell("worker", OBEYS, "redis", stop_seconds=300.0),
    ]
    Parts(parts, seconds=SECONDS).run(announce=announce)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
