"""Defects of the reader of files and of what is written, and for each the test that must notice it."""

from __future__ import annotations

from tests.sabotage.runner import Defect

FILES, BASELINES = "harness/files", "harness/parity/baselines"
READING, DOCUMENTS, SCHEMA = f"{FILES}/reading.py", f"{FILES}/documents.py", f"{FILES}/schema.py"
CHECKPOINT, ATOMIC = "harness/engine/decoders/checkpoint.py", "harness/engine/atomic.py"
T_READING, T_DOCUMENTS, T_SCHEMA = (f"tests/files/test_{name}.py" for name in ("reading", "documents", "schema"))
T_CAPTURES, T_OTHERS, T_ATOMIC = (
    "tests/files/test_captures.py",
    "tests/files/test_other_kinds.py",
    "tests/engine/test_atomic.py",
)

FILE_DEFECTS = [
    Defect(
        "a file is opened whatever it is",
        READING,
        "        _check(path, _found(path), limit)\n",
        "        os.stat(path)\n",
        f"{T_READING}::test_a_device_is_refused_before_it_is_opened",
    ),
    Defect(
        "a file that takes another one's place is not looked at again",
        READING,
        "            _check(path, os.fstat(handle), limit)\n",
        "",
        f"{T_READING}::test_a_fifo_that_takes_the_file_s_place_meanwhile_does_not_block",
    ),
    Defect(
        "a file is read beyond its limit",
        READING,
        "    if not left:\n        raise",
        "    if left < 0:\n        raise",
        f"{T_READING}::test_a_file_that_has_no_size_is_read_whole_and_within_the_limit",
    ),
    Defect(
        "a name that occurs twice has its last value",
        DOCUMENTS,
        "    if len(found) != len(pairs):\n",
        "    if len(found) > len(pairs):\n",
        f"{T_DOCUMENTS}::test_what_is_not_strict_json_is_refused_by_file_and_field",
    ),
    Defect(
        "a number beyond all floats is infinite",
        DOCUMENTS,
        "len(digits) <= _DIGITS and math.isfinite(value := float(digits))",
        "len(digits) <= _DIGITS and ((value := float(digits)) is not None)",
        f"{T_DOCUMENTS}::test_what_is_not_strict_json_is_refused_by_file_and_field",
    ),
    Defect(
        "names of a document may hold lone surrogates",
        DOCUMENTS,
        "            _check_text(path, place, name)\n",
        "            pass\n",
        f"{T_DOCUMENTS}::test_what_is_not_strict_json_is_refused_by_file_and_field",
    ),
    Defect(
        "values are counted after they are made",
        DOCUMENTS,
        '    if 1 + sum(map(text.count, ",[{")) > values:\n',
        "    if not text:\n",
        f"{T_DOCUMENTS}::test_more_values_than_memory_is_meant_for_are_refused_before_they_are_made",
    ),
    Defect(
        "a record takes any field",
        SCHEMA,
        "        if name not in known:\n            raise",
        "        if name is None:\n            raise",
        f"{T_SCHEMA}::test_what_does_not_fit_is_refused_by_field",
    ),
    Defect(
        "a bool is an integer",
        SCHEMA,
        "    if type(value) is kind:\n",
        "    if isinstance(value, kind):\n",
        f"{T_SCHEMA}::test_what_does_not_fit_is_refused_by_field",
    ),
    Defect(
        "a contract lists rows without end",
        f"{BASELINES}/contract.py",
        "            left -= len(rows[asked])\n",
        "",
        f"{T_CAPTURES}::test_a_contract_that_was_sealed_anew_is_refused_by_field",
    ),
    Defect(
        "an index leads out of its folder",
        CHECKPOINT,
        "    weight_map: Mapping[str, Folder]\n",
        "    weight_map: Mapping[str, str]\n",
        f"{T_OTHERS}::test_an_index_that_leads_out_of_its_folder_is_refused_and_not_followed",
    ),
    Defect(
        "weights that are not finite load",
        CHECKPOINT,
        "not bool(torch.isfinite(value).all())",
        "value.numel() == 0",
        f"{T_OTHERS}::test_weights_that_are_not_finite_are_refused_by_name",
    ),
    Defect(
        "weights of integers load",
        CHECKPOINT,
        "            if listed.dtype not in _FLOATS:\n",
        "            if not listed.dtype:\n",
        f"{T_OTHERS}::test_weights_of_another_kind_of_number_are_refused_by_name",
    ),
    Defect(
        "names of a file reach the terminal as they are",
        f"{FILES}/refused.py",
        'each == "\\n" or each.isprintable() else',
        'each == "\\n" or each else',
        "tests/files/test_refused.py::test_a_control_character_becomes_an_escape_sequence",
    ),
    Defect(
        "a part that cannot run hides the others",
        "harness/commands/parts.py",
        "            if not self.several or ended.code != COULD_NOT_RUN:\n",
        "            if ended.code:\n",
        "tests/commands/test_parts.py::test_an_error_is_printed_and_kept_and_what_follows_runs",
    ),
    Defect(
        "a report replaces the link that is there",
        ATOMIC,
        "    return Path(os.path.realpath(path)) if stat.S_ISREG(kind) and not open_file else None\n",
        "    return path if stat.S_ISREG(kind) and not open_file else None\n",
        f"{T_ATOMIC}::test_an_output_goes_through_the_links_that_are_there_and_a_file_keeps_its_mode",
    ),
    Defect(
        "a report replaces the device that is there",
        ATOMIC,
        "    if target is None:\n",
        "    if target is Ellipsis:\n",
        f"{T_ATOMIC}::test_a_device_is_written_to_and_stays",
    ),
    Defect(
        "a folder is not synced after a rename",
        ATOMIC,
        "    sync_folder(path.parent)\n",
        "",
        f"{T_ATOMIC}::test_all_of_the_data_is_on_disk_beside_the_target_before_it_takes_its_place",
    ),
    Defect(
        "two bless at once",
        ATOMIC,
        "        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "",
        "tests/parity/baselines/test_bless.py::test_of_two_that_bless_at_once_one_wins_and_the_other_is_refused",
    ),
    Defect(
        "the manifest is written before the captures",
        f"{BASELINES}/bless.py",
        "    for name in gone:\n        (folder /",
        "    store.write_manifest(folder, store.Manifest(dict(here), engine, str(torch.__version__), kept))\n"
        "    for name, each in played.items():\n"
        '        atomic.write(folder / store.file_name(name), b"")\n'
        "        atomic.write(folder / store.file_name(name), store.serialize(each.finished))\n"
        "    for name in gone:\n        (folder /",
        "tests/parity/baselines/test_interrupted.py::"
        "test_a_blessing_that_breaks_off_anywhere_is_seen_and_can_be_done_again",
    ),
]
