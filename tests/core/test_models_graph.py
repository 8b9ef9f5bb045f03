"""The graph of a model: its text, what Graphviz draws of it, and the two ways to ask for it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from c2c_otel.commands import models_graph as command
from c2c_otel.models_graph import ModelError, generate_model_graph, model_graph

ROOT = Path(__file__).resolve().parents[2]

MODEL = '''
from __future__ import annotations
from sqlalchemy import Column, ForeignKey, Integer, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

class Base(DeclarativeBase):
    pass

class Stamped:
    """A mixin."""
    created: Mapped[int | None] = mapped_column()

class Keyed(Base):
    __abstract__ = True
    id: Mapped[int] = mapped_column(primary_key=True)

tags = Table("tags", Base.metadata, Column("a_id", ForeignKey("animal.id")), Column("t_id", ForeignKey("tag.id")))

class Tag(Keyed):
    __tablename__ = "tag"
    name: Mapped[str]

class Animal(Stamped, Keyed):
    __tablename__ = "animal"
    kind: Mapped[str]
    name: Mapped[str | None] = mapped_column("the_name")
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped[Owner | None] = relationship(back_populates="animals")
    tags: Mapped[list[Tag]] = relationship(secondary=tags)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

class Cat(Animal):
    """Joined: a table of its own."""
    __tablename__ = "cat"
    id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)
    lives: Mapped[int] = mapped_column()
    __mapper_args__ = {"polymorphic_identity": "cat"}

class Dog(Animal):
    """Single: in the table of the animals."""
    barks: Mapped[bool | None]
    __mapper_args__ = {"polymorphic_identity": "dog"}

class Owner(Keyed):
    __tablename__ = "owner"
    animals: Mapped[list[Animal]] = relationship(back_populates="owner")
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"))
    parent: Mapped[Owner | None] = relationship(remote_side="Owner.id")
'''

GRAPH = r"""digraph {
  rankdir=BT;
  node [shape=box];
  "Animal" [label="Animal\n\ncreated [null]\lid\lkind\lname [null]\lowner_id [null]\lowner -> Owner\ltags -> Tag[]\l"];
  "Cat" [label="Cat\n\nid\llives\l"];
  "Dog" [label="Dog\n\nbarks [null]\l"];
  "Owner" [label="Owner\n\nid\lparent_id [null]\lanimals -> Animal[]\lparent -> Owner\l"];
  "Tag" [label="Tag\n\nid\lname\l"];
  "Animal" -> "Owner" [style=dashed, arrowhead=vee, label="owner"];
  "Animal" -> "Tag" [style=dashed, arrowhead=vee, label="tags"];
  "Cat" -> "Animal" [arrowhead=empty];
  "Dog" -> "Animal" [arrowhead=empty];
  "Owner" -> "Animal" [style=dashed, arrowhead=vee, label="animals"];
  "Owner" -> "Owner" [style=dashed, arrowhead=vee, label="parent"];
}
"""

Make = Callable[..., ModuleType]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Modules from texts."""

    def make(text: str, name: str = "zoo") -> ModuleType:
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)
        return module

    yield make


def attributes(text: str, name: str) -> set[str]:
    """The rows of a class's box."""
    label = re.search(rf'^  "{name}" \[label="(.*)"\];$', text, re.MULTILINE)
    assert label, text
    return set(label[1].split(r"\n\n")[1].split(r"\l")) - {""}


def test_text(make: Make) -> None:
    text = model_graph(make(MODEL))
    lines, expected = text.splitlines(), GRAPH.splitlines()
    for name in ("Animal", "Cat", "Dog", "Owner", "Tag"):  # the order of inherited columns is SQLAlchemy's affair
        assert attributes(text, name) == attributes(GRAPH, name)
    assert [line for line in lines if "label=" not in line or "->" in line.split("label")[0]] == [
        line for line in expected if "label=" not in line or "->" in line.split("label")[0]
    ]


def test_only_what_derives_from_a_class(make: Make) -> None:
    module = make(MODEL)
    text = model_graph(module, "Animal")
    assert '"Cat" -> "Animal" [arrowhead=empty];' in text
    assert "owner -> Owner\\l" in text  # told, but not drawn
    assert not re.search(r'^  "(Owner|Tag)"', text, re.MULTILINE)
    assert '-> "Owner"' not in text
    cats = model_graph(module, "Cat")
    assert [line for line in cats.splitlines() if "label" in line] == [r'  "Cat" [label="Cat\n\nid\llives\l"];']


def test_an_own_table_has_all_columns(make: Make) -> None:
    text = model_graph(
        make(
            MODEL + "\nclass Robot(Tag):\n    __tablename__ = 'robot'\n    id: Mapped[int] = mapped_column("
            "primary_key=True)\n    name: Mapped[str]\n    __mapper_args__ = {'concrete': True}\n"
        )
    )
    assert attributes(text, "Robot") == {"id", "name"}
    assert '"Robot" -> "Tag" [arrowhead=empty];' in text


def test_an_expression_is_no_column_that_could_be_null(make: Make) -> None:
    text = model_graph(make(MODEL + "\nTag.upper = column_property(Tag.__table__.c.name + 'x')\n"))
    assert attributes(text, "Tag") == {"id", "name", "upper"}


def other_base(name: str) -> str:
    return re.sub(r"\bBase\b", name, MODEL)


def test_another_base(make: Make) -> None:
    module = make(other_base("Model"))
    assert model_graph(module).replace("Model", "Base") == model_graph(module, "Model").replace("Model", "Base")
    assert attributes(model_graph(module), "Tag") == {"id", "name"}


def test_a_base_of_the_older_kind(make: Make) -> None:
    module = make(
        "from sqlalchemy import Column, Integer, ForeignKey\n"
        "from sqlalchemy.orm import declarative_base, relationship, backref\n"
        "Base = declarative_base()\n"
        "class A(Base):\n    __tablename__ = 'a'\n    id = Column(Integer, primary_key=True)\n"
        "class B(Base):\n    __tablename__ = 'b'\n    id = Column(Integer, primary_key=True)\n"
        "    a_id = Column(ForeignKey('a.id'))\n    a = relationship('A', backref='bs')\n"
    )
    text = model_graph(module)
    assert attributes(text, "A") == {"id", "bs -> B[]"}
    assert attributes(text, "B") == {"id", "a_id [null]", "a -> A"}


def test_two_classes_of_one_name(make: Make) -> None:
    text = "class Same({base}):\n    __tablename__ = '{table}'\n    id: Mapped[int] = mapped_column(primary_key=True)\n"
    first = make(MODEL + text.format(base="Base", table="one"))
    imports = "from sqlalchemy.orm import Mapped, mapped_column\nfrom zoo import Base\n"
    make(imports + text.format(base="Base", table="two"), "farm")
    shown = model_graph(first)
    assert attributes(shown, "zoo.Same") == attributes(shown, "farm.Same") == {"id"}
    assert '"Same"' not in shown


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nobody", "zoo has no declarative class Nobody; expected a base of models, it has Base"),
        ("tags", "zoo has no declarative class tags"),
        ("Stamped", "zoo has no declarative class Stamped"),
    ],
)
def test_no_such_base(make: Make, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        model_graph(make(MODEL), name)


def test_no_base_at_all(make: Make) -> None:
    with pytest.raises(ModelError, match="it has none"):
        model_graph(make("x = 1"))


def test_which_base_must_be_clear(make: Make) -> None:
    text = other_base("One") + "class Two(DeclarativeBase):\n    pass\n"
    text += "class X(Two):\n    __tablename__ = 'x'\n    id: Mapped[int] = mapped_column(primary_key=True)\n"
    with pytest.raises(ModelError, match=r"zoo has no declarative class Base; .* it has One, Two$"):
        model_graph(make(text))


def test_a_model_that_cannot_be_configured(make: Make) -> None:
    with pytest.raises(ModelError, match=r"zoo cannot be configured.*Nowhere"):
        model_graph(make(MODEL + "\nTag.other = relationship('Nowhere')\n"))


# -- Graphviz ---------------------------------------------------------------------------------------------------------


def drawn(svg: str) -> tuple[dict[str, list[str]], set[str]]:
    """The rows of each box, and the edges, of what dot has drawn."""
    space = "{http://www.w3.org/2000/svg}"
    boxes, edges = {}, set()
    for group in ElementTree.fromstring(svg).iter(f"{space}g"):
        title = (group.findtext(f"{space}title") or "").strip()
        if group.get("class") == "node":
            boxes[title] = [row.text or "" for row in group.iter(f"{space}text")]
        elif group.get("class") == "edge":
            edges.add(title)
    return boxes, edges


def test_graphviz_draws_it(make: Make, dot: Callable[[str], str]) -> None:
    boxes, edges = drawn(dot(model_graph(make(MODEL))))
    assert set(boxes) == {"Animal", "Cat", "Dog", "Owner", "Tag"}
    assert boxes["Cat"][0] == "Cat"
    assert set(boxes["Animal"]) - {""} >= {"Animal", "name [null]", "owner -> Owner", "tags -> Tag[]"}
    assert edges == {"Cat->Animal", "Dog->Animal", "Animal->Owner", "Owner->Animal", "Animal->Tag", "Owner->Owner"}


def test_graphviz_draws_any_name(make: Make, dot: Callable[[str], str]) -> None:
    text = "\nTag.__mapper__.class_.__name__ = 'a\"b\\\\c <d>\\n{e}'\n"
    boxes, _ = drawn(dot(model_graph(make(MODEL + text))))
    assert any('a"b\\c <d> {e}' in rows for rows in boxes.values())


# -- asking for it ----------------------------------------------------------------------------------------------------


def test_from_a_script(make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = make(MODEL)
    monkeypatch.setattr(sys, "argv", ["graph.py"])
    generate_model_graph(module)
    assert capsys.readouterr().out == model_graph(module)
    monkeypatch.setattr(sys, "argv", ["graph.py", "Cat"])
    generate_model_graph(module)
    assert capsys.readouterr().out == model_graph(module, "Cat")
    for argv in (["graph.py", "a", "b"], ["graph.py", "Nobody"]):
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as caught:
            generate_model_graph(module)
        assert str(caught.value).startswith(("usage: graph.py [BASE]", "graph.py: zoo has no declarative class"))


def test_command(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    module = make(MODEL)
    assert command.main(["zoo"]) == 0
    assert capsys.readouterr().out == model_graph(module)
    assert command.main(["zoo", "Cat"]) == 0
    assert capsys.readouterr().out == model_graph(module, "Cat")
    assert command.main(["zoo", "Nobody"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0][:60]) == ("", "c2c-otel-models-graph: zoo has no declarative class Nobody; ")
    assert command.main(["no_such_module"]) == 1
    assert "No module named 'no_such_module'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        command.main([])
    assert caught.value.code == 2


def test_command_finds_modules_where_it_is_started(tmp_path: Path) -> None:
    (tmp_path / "zoo.py").write_text(MODEL)
    argv = [sys.executable, "-P", "-m", "c2c_otel.commands.models_graph", "zoo", "Cat"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"Cat" [label=' in done.stdout


def test_the_demo_application_has_one(dot: Callable[[str], str]) -> None:
    argv = [sys.executable, "-m", "acceptance_tests.app.models_graph"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"```\n{done.stdout}```" in (ROOT / "docs/commands.md").read_text()
    boxes, _ = drawn(dot(done.stdout))
    assert [row for row in boxes["Hello"] if row] == ["Hello", "id", "value"]
