"""TEMPORARY stub."""
from pathlib import Path
R = Path(__file__).parent.parent
def boards_dir(): return R / "boards"
def templates_dir(): return R / "templates"
def runtime_dir(): return R / "runtime_c"
