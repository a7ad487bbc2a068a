"""Installs Debian's or Ubuntu's Chromium where there is none and we may; otherwise says what to do.

PYTHONPATH=tests .venv/bin/python -m browser.install_chromium
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from browser.chromium import HOW_TO_ENABLE, find_chromium


def main() -> None:
    if find_chromium():
        return
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if shutil.which("apt-get") and (not root or shutil.which("sudo")):
        for command in (["update", "-q"], ["install", "-qy", "--no-install-recommends", "chromium"]):
            if subprocess.run([*root, "apt-get", *command], check=False).returncode:
                break
    if not find_chromium():
        sys.stdout.write(f"{HOW_TO_ENABLE}\n")  # the tests then skip, and say so too


if __name__ == "__main__":
    main()
