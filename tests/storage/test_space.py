from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.space import require_free_space


def test_what_does_not_fit_the_disk_is_refused_beforehand(tmp_path: Path):
    require_free_space(tmp_path / "not" / "there", 1000, what="a small thing")
    with pytest.raises(StorageError, match=r"a large thing needs .* GB free"):
        require_free_space(tmp_path / "not" / "there", 10**18, what="a large thing")
