"""Bundles in one file: what we write is what we read, and nothing that is unusual is read."""

import contextlib
import gzip
import io
import json
import random
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.decision import archive, bundle
from sidecar.decision.folder import load_folder
from sidecar.errors import ConfigurationError

POLICIES = Path(__file__).parents[2] / "policies"
MANIFEST = b'{"roots": ["sidecar", "limits"], "revision": "human"}'
RULE = b"package sidecar\n\ndecision := 1\n"
FILES = {".manifest": MANIFEST, "sidecar/decision.rego": RULE, "limits/data.json": b'{"ttl": 5}'}


def entry(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def packed(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=form) as made:
        for info, content in entries:
            made.addfile(info, io.BytesIO(content))
    return plain.getvalue()


def whole(*more: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    return gzip.compress(packed(*(entry(name, content) for name, content in FILES.items()), *more, form=form))


def finding(content: bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        archive.load_archive(content, "x.tar.gz")
    assert caught.value.where.startswith("x.tar.gz")
    assert caught.value.fix
    return str(caught.value)


# --- writing -----------------------------------------------------------------------------------------------------


def test_what_is_built_reads_as_the_folder_with_its_revision_in_the_manifest():
    folder = load_folder(POLICIES)
    content = archive.write_archive(archive.built(folder))
    found = archive.load_archive(content, "x")
    assert (found.revision, found.label) == (folder.revision, folder.label)
    assert (found.modules, found.tests, found.data, found.corpus) == (
        folder.modules, folder.tests, folder.data, folder.corpus,
    )  # fmt: skip
    said = json.loads(dict(found.files)[".manifest"])
    assert (said["revision"], said["metadata"]["label"]) == (folder.revision, folder.label)


def test_what_is_built_twice_is_the_same_to_the_byte():
    once = archive.load_archive(archive.write_archive(archive.built(load_folder(POLICIES))), "x")
    assert archive.write_archive(archive.built(once)) == archive.write_archive(archive.built(load_folder(POLICIES)))
    assert archive.write_archive(reversed(archive.built(once))) == archive.write_archive(archive.built(once))


def test_nothing_of_the_machine_gets_in():
    content = archive.write_archive(FILES.items())
    with tarfile.open(fileobj=io.BytesIO(content)) as made:
        told = {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in made}
    assert told == {(0, 0, 0, "", "", 0o644)}
    assert content[4:8] == b"\0\0\0\0"


def test_what_is_kept_is_exact_with_its_signatures():
    found = archive.load_archive(whole(entry(".signatures.json", b"{}")), "x")
    assert found.signatures == b"{}"
    again = archive.load_archive(archive.write_archive(archive.exact(found)), "x")
    assert again == found
    assert dict(again.files)[".manifest"] == MANIFEST


# --- names that others use -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "/", "./"])
def test_every_usual_form_is_read(form, prefix):
    long = "sidecar/" + "a" * 90 + "/" + "b" * 60 + ".rego"
    names = {**FILES, long: b"package sidecar.b\n"}
    content = packed(
        *(entry(name, kind=tarfile.DIRTYPE) for name in (f"{prefix or './'}", f"{prefix}sidecar/") if name != "/"),
        *(entry(prefix + name, text) for name, text in names.items()), form=form,
    )  # fmt: skip
    assert archive.read_archive(gzip.compress(content), "x") == names


def test_what_belongs_to_no_bundle_is_passed_over():
    more = whole(entry("README.md", b"x" * 2000), entry("schemas/input.json", b"{}"))
    assert archive.load_archive(more, "x") == archive.load_archive(whole(), "x")


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (entry("../up.rego", RULE), "leads out"),
        (entry("sidecar/../../up.rego", RULE), "leads out"),
        (entry("../up/", kind=tarfile.DIRTYPE), "leads out"),
        (entry("//etc/up.rego", RULE), "not a plain relative path"),
        (entry("sidecar//up.rego", RULE), "not a plain relative path"),
        (entry("sidecar/./up.rego", RULE), "not a plain relative path"),
        (entry("sidecar\\up.rego", RULE), "not a plain relative path"),
        (entry("sidecar/a\nb.rego", RULE), "not a plain relative path"),
        (entry("sidecar/" + "a" * 1100 + ".rego", RULE), "not a plain relative path"),
        (entry("/".join("abcdefghijklmnopqrst") + ".rego", RULE), "nested deeper"),
        (entry("sidecar/.hidden.rego", RULE), "a hidden file"),
        (entry("sidecar/.manifest", b"{}"), "a second .manifest"),
        (entry("a/.signatures.json", b"{}"), "a second .signatures.json"),
        (entry("sidecar/decision.rego", RULE), "two entries of one name"),
        (entry("sidecar/Decision.rego", RULE), "two entries of one name"),
        (entry("sidecar/link.rego", kind=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link"),
        (entry("sidecar/link.rego", kind=tarfile.LNKTYPE, linkname="sidecar/decision.rego"), "a hard link"),
        (entry("sidecar/null.rego", kind=tarfile.CHRTYPE), "a device"),
        (entry("sidecar/disk.rego", kind=tarfile.BLKTYPE), "a device"),
        (entry("sidecar/pipe.rego", kind=tarfile.FIFOTYPE), "a pipe"),
        (entry("sidecar/sparse.rego", RULE, kind=tarfile.GNUTYPE_SPARSE), "a sparse file"),
        (entry("sidecar/odd.rego", RULE, kind=b"Z"), "no known kind"),
        (entry("sidecar/deep.rego", RULE, pax_headers={"GNU.sparse.major": "1"}), "sparse"),
        (entry("sidecar/odd.rego", RULE, pax_headers={"hdrcharset": "BINARY"}), "character set"),
        (entry("policy.wasm", b"\0asm"), "compiled policies"),
        (entry("patch.json", b"{}"), "a delta bundle"),
        (entry("sidecar/data.yaml", b"a: 1"), "JSON only"),
        (entry("sidecar/long.rego", RULE + b"#" * bundle.MAX_MODULE_BYTES), "larger than 1048576 bytes"),
        (entry("schemas/corpus.json", b"\xff"), "not a list of input documents"),
    ],
)
def test_an_entry_that_is_no_plain_file_of_a_bundle_is_named(more, words):
    assert words in finding(whole(more))


def test_letters_that_look_the_same_are_the_same_name():
    assert "two entries of one name" in finding(
        whole(entry("sidecar/é.rego", b"package sidecar.a"), entry("sidecar/é.rego", b"package sidecar.b"))
    )


def test_a_name_that_is_not_utf8():
    content = packed(entry("sidecar/\udcff.rego", RULE), form=tarfile.GNU_FORMAT)
    assert "not UTF-8" in finding(gzip.compress(content))


def test_one_path_for_all_entries():
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", pax_headers={"path": "sidecar/a.rego"}) as made:
        made.addfile(*((info := entry("b.rego", RULE))[0], io.BytesIO(info[1])))
    assert "one path or size for all" in finding(gzip.compress(plain.getvalue()))


@pytest.mark.parametrize("cut", [0, 1, 9, 200, 1000])
def test_an_archive_that_is_cut_short(cut):
    content = whole()
    assert finding(content[:cut] if cut < 300 else content[:-12])
    plain = gzip.decompress(content)
    assert "cut short" in finding(gzip.compress(plain[: 512 + cut])) if cut else True
    assert "has no end" in finding(gzip.compress(plain[:1024]))


def test_nothing_may_follow_the_end():
    plain = gzip.decompress(whole())
    assert "follows the end" in finding(gzip.compress(plain + plain))
    assert "follows the compressed archive" in finding(whole() + b"x")
    assert "follows the compressed archive" in finding(whole() + whole())


def test_a_damaged_header_is_no_end():
    plain = bytearray(gzip.decompress(whole()))
    plain[1024 + 5] ^= 1  # in the name of the second entry
    assert "header of an entry is damaged" in finding(gzip.compress(bytes(plain)))


def test_a_file_of_a_gigabyte_is_refused_by_its_header():
    info = tarfile.TarInfo("limits/data.json")
    info.size = 1 << 30
    header = info.tobuf(tarfile.USTAR_FORMAT)
    squeeze = zlib.compressobj(wbits=31)
    content = (
        squeeze.compress(header) + b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(1024)) + squeeze.flush()
    )
    tracemalloc.start()
    assert "larger than 67108864 bytes" in finding(content)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_bomb_ends_at_the_limit():
    """What is passed over counts too."""
    info = tarfile.TarInfo("README.md")
    info.size = 1 << 30
    squeeze = zlib.compressobj(wbits=31)
    content = squeeze.compress(info.tobuf(tarfile.USTAR_FORMAT))
    content += b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(130)) + squeeze.flush()
    assert len(content) < 1 << 20
    tracemalloc.start()
    assert "unpacks to more than" in finding(content)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_size_that_is_a_lie_in_an_extension():
    content = whole(entry("limits/more/data.json", b"{}", pax_headers={"size": "9" * 18}))
    assert "larger than" in finding(content)
    assert "no number" in finding(whole(entry("limits/more/data.json", b"{}", pax_headers={"size": "-1"})))


def test_more_entries_or_bytes_than_a_bundle_has():
    many = [entry(f"limits/{number}/data.json", b"{}") for number in range(bundle.MAX_FILES)]
    assert "larger than" in finding(whole(*many))
    folders = [entry(f"limits/{number}/", kind=tarfile.DIRTYPE) for number in range(2 * bundle.MAX_FILES)]
    assert "entries" in finding(whole(*folders))
    assert "larger than" in finding(bytes(archive.MAX_ARCHIVE_BYTES + 1))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_comes_ends_in_files_or_in_a_finding(data):
    plain = bytearray(packed(*(entry(name, content) for name, content in FILES.items())))
    dice = random.Random(data.draw(st.integers(0, 1 << 32)))
    for _ in range(dice.randrange(1, 5)):
        plain[dice.randrange(len(plain))] = dice.randrange(256)
    if dice.random() < 0.5:  # with a header that holds, so that what is behind it is looked at
        for at in range(0, 3072, 512):
            block = plain[at : at + 512]
            if any(block):
                plain[at + 148 : at + 156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    with contextlib.suppress(ConfigurationError):  # anything else would be a traceback at the operator's
        archive.load_archive(gzip.compress(bytes(plain), 1), "x")
