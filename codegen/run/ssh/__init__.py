"""The runner `ssh`: the real board, reached with paramiko; it needs sshd and a POSIX shell."""

from codegen.run.ssh.runner import Limits, SshRunner

__all__ = ["Limits", "SshRunner"]
