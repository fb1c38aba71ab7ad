"""`docs/reference/proofs.md` names every proof, and no proof that does not exist."""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
DOCUMENT = FOLDER.parents[1] / "docs" / "reference" / "proofs.md"
OF_THE_TOOL = {"test_prover.py", "test_document.py"}  # about the prover and this document, not about gateware


def proofs():
    """Test functions of the proofs, with the decorators and names that they mention."""
    for path in sorted(FOLDER.glob("test_*.py")):
        if path.name not in OF_THE_TOOL:
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    yield node.name, ast.unparse(node)


def rows():
    """Rows of the first table: block, claim, how, size, proofs, refutations."""
    table = DOCUMENT.read_text().partition("## What is proven")[2].partition("\n## ")[0]
    for line in table.splitlines():
        if line.startswith("| ") and not line.startswith(("| block", "| ---")):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def named(cell):
    """(test, it is marked as long) of each test in a cell."""
    return [(name, bool(long)) for name, long in re.findall(r"`(test_\w+)`( \(long\))?", cell)]


def test_document_names_every_proof_and_only_those_that_exist():
    written = {name for row in rows() for name, _ in named(row[4]) + named(row[5])}
    assert written == {name for name, _ in proofs()}


def test_every_claim_has_a_proof_and_a_wrong_design_that_it_refutes():
    for row in rows():
        assert len(row) == 6, row
        assert named(row[4]), f"{row[0]}: {row[1]}"
        assert named(row[5]), f"{row[0]}: {row[1]}"


def test_document_says_which_proofs_are_long_and_by_what_method_each_is_decided():
    sources = dict(proofs())
    for row in rows():
        for name, long in named(row[4]) + named(row[5]):
            assert long == ("@pytest.mark.long_proof" in sources[name]), name
        methods = {"prove(" in sources[name] for name, _ in named(row[4])}
        assert methods == {row[2].startswith("induction")}, f"{row[0]}: {row[2]}"
        assert row[2].startswith(("induction", "bounded")), row[2]
        for name, _ in named(row[5]):
            assert ".refuted" in sources[name], name
