"""The mutants. When the code moves on, `text` has to be brought along: test_table.py says which."""

from __future__ import annotations

from tests.mutations.mutant import Edit, Mutant, mutant

_STORE = "tests/messaging/test_unread_store.py::"
_UNREAD = "tests/messaging/test_unread.py::"
_LISTEN = "tests/messaging/test_listen.py::"
_API = "tests/messaging/test_api.py::"
_PROMISES = "tests/messaging/test_promises.py::"
_COUNTING = "tests/messaging/test_counting.py::"
_COMPANY = "tests/messaging/test_company.py::"
_RESUMING = "tests/messaging/test_resuming.py::"
_CURSOR = "tests/faults/test_cursor.py::"
_GAPS = "tests/messaging/test_gaps.py::"
_CURSORS = "tests/messaging/test_cursors.py::"
_SSE = "tests/messaging/test_sse.py::"
_FUZZ = "tests/fuzz/test_sse_properties.py::"
_BROWSER = "tests/fuzz/test_sse_browser.py::"
_JOURNEYS = "tests/journeys/"

MUTANTS = [
    # -- D1: shown exactly once, counted at most once, never lost ------------------------------------------------
    Mutant(
        "receipts are not unique by message id",
        "D1",
        (
            Edit(
                "messaging/models.py",
                'models.UniqueConstraint(fields=["inbox", "message_id"], name="one_receipt_per_message")',
                "",
            ),
            Edit(
                "messaging/migrations/0001_inboxes.py",
                """\
        migrations.AddConstraint(
            model_name="receipt",
            constraint=models.UniqueConstraint(fields=("inbox", "message_id"), name="one_receipt_per_message"),
        ),
""",
                "",
            ),
        ),
        (f"{_STORE}test_it_counts_a_message_once_however_often_it_is_recorded",),
    ),
    mutant(
        "ids that were handed out are forgotten at once",
        "D1",
        "messaging/outlet.py",
        "        return message.id in self._ids or message.id in self._old_ids\n",
        "        return False\n",
        f"{_LISTEN}test_it_shows_a_repeated_message_once",
    ),
    mutant(
        "a stream doesn't leave out what it has replayed",
        "D1",
        "messaging/streams.py",
        "        self._sent_already = {item.message.id for item in start.backlog if item.message is not None}"
        " | start.summed_up\n",
        "        self._sent_already: set[str] = set()\n",
        f"{_PROMISES}test_what_arrives_while_a_stream_is_being_opened_comes_once",
    ),
    mutant(
        "a replay from memory begins with what the reader had",
        "D1",
        "messaging/outlet.py",
        "                return items[position + 1 :]\n",
        "                return items[position:]\n",
        f"{_LISTEN}test_it_replays_exactly_what_came_after_an_id",
    ),
    mutant(
        "a replay from history begins with what the reader had",
        "D1",
        "messaging/resuming.py",
        "        if repeats or mark(message.id) not in cursor.marks\n",
        "",
        f"{_LISTEN}test_it_replays_from_history_after_a_restart_of_the_application",
    ),
    mutant(
        "a replay from history stops at the first topic",
        "D1",
        "messaging/catchup.py",
        "    for topic in (await survey(pages)).topics:\n",
        "    for topic in (await survey(pages)).topics[:1]:\n",
        f"{_LISTEN}test_it_replays_from_history_after_a_restart_of_the_application",
    ),
    mutant(
        "what the stream left out is not looked for",
        "D1",
        "messaging/catchup.py",
        "    changed = [topic for topic in listing.topics if is_changed(topic, known)]\n",
        "    changed: list[TopicSummary] = []\n",
        f"{_LISTEN}test_it_finds_what_falls_into_the_blind_window",
        f"{_LISTEN}test_it_survives_a_break_of_the_upstream_stream",
    ),
    mutant(
        "a cursor promises all that is older than the newest",
        "D1",
        "messaging/outlet.py",
        "        return self.sealer.write(self.proven, sent_ms, self._marks, self._span_text, sure_at_ms=sure_ms)\n",
        "        return self.sealer.write(self.head or self.proven, sent_ms)\n",
        f"{_PROMISES}test_what_one_process_never_heard_of_another_replays",
    ),
    mutant(
        "a reader from another process is given that feed's cursors, which don't say what it had",
        "D1",
        "messaging/resuming.py",
        '        return Start(from_memory(feed.outlet, cursor), resumed="memory", had=cursor)\n',
        '        return Start(feed.outlet.after(cursor.order), resumed="memory", had=cursor)\n',
        f"{_RESUMING}test_a_reader_who_moves_takes_along_what_it_had",
    ),
    mutant(
        "what a reader had in another process isn't named by the cursors that it is given here",
        "D1",
        "messaging/resuming.py",
        '            self._sum_up(message.order)\n        return self._write(time.time_ns() // 1_000_000, "")\n',
        "            self._sum_up(message.order)\n        self._named = [message]\n"
        '        return self._write(time.time_ns() // 1_000_000, "")\n',
        f"{_RESUMING}test_a_reader_who_moves_takes_along_what_it_had",
    ),
    mutant(
        "a feed vouches for what was made just before it began",
        "D1",
        "messaging/outlet.py",
        "                self.proven = since\n",
        "                pass\n",
        f"{_RESUMING}test_a_young_feed_vouches_for_nothing_that_may_still_be_on_its_way",
    ),
    mutant(
        "a feed that has asked nobody yet is sure of what was made just before it began",
        "D1",
        "messaging/outlet.py",
        "self._sure_at_ms if self._span is None else 0\n",
        "0\n",
        f"{_CURSOR}test_a_reader_who_moves_is_shown_what_was_stored_late_while_its_first_feed_was_young",
    ),
    mutant(
        "what was there just before a feed began isn't named by its cursors",
        "D1",
        "messaging/gaps.py",
        "            self._outlet.look_back(message for message in recent if message.id not in set_aside)\n",
        "            self._outlet.look_back([])\n",
        f"{_GAPS}test_the_first_comparison_names_what_was_there_just_before",
    ),
    mutant(
        "an answer that is old when it comes isn't taken for late",
        "D1",
        "messaging/outlet.py",
        "        return now_ms * 1000 + self._their_lead_us - made_us > _AGED_US\n",
        "        return False\n",
        f"{_RESUMING}test_what_is_old_when_it_comes_is_late_whoever_has_compared",
    ),
    mutant(
        "a receipt that was made late is taken for a newer one",
        "D1",
        "messaging/unread.py",
        "until + PUT_OFF if until < _EVER else _EVER",
        "until",
        f"{_STORE}test_what_another_process_handed_out_late_before_a_feed_began_is_what_its_readers_have_had",
    ),
    mutant(
        "what the database would not settle is forgotten",
        "D6",
        "messaging/gaps.py",
        "                self._expected |= "
        "{t.scope: known.get(t.scope, catchup.NOTHING_KNOWN) for t in difference.topics}\n"
        "                self._is_settled = False\n                raise\n",
        "                raise\n",
        f"{_GAPS}test_what_the_database_would_not_settle_is_settled_by_the_next_comparison",
    ),
    mutant(
        "what comes during a replay keeps a cursor that doesn't name the replay",
        "D1",
        "messaging/resuming.py",
        "    lately = [*feed.outlet.after(order), *reader.messages()]\n",
        "    lately: list[StreamItem] = []\n",
        f"{_RESUMING}test_what_the_stream_brings_during_a_replay_names_what_the_replay_gave",
    ),
    mutant(
        "a topic that was missing and is there again looks as it did before",
        "D1",
        "messaging/gaps.py",
        "                self._expected[scope] = replace(self._expected[scope], count=_NO_COUNT)\n",
        "                pass\n",
        f"{_COUNTING}test_as_many_answers_in_a_topic_that_was_deleted_are_not_taken_for_those",
    ),
    mutant(
        "a burst with a hole is taken for whole",
        "D1",
        "messaging/resuming.py",
        "    if cursor.span is not None and not repeats and Span(start).with_(had) != cursor.span:\n",
        "    if False:\n",
        f"{_PROMISES}test_a_burst_with_a_hole_in_it_is_not_taken_for_whole",
    ),
    mutant(
        "a cursor is honoured without its seal",
        "D1",
        "messaging/cursors.py",
        "        if not hmac.compare_digest(",
        "        if False and not hmac.compare_digest(",
        f"{_CURSORS}test_it_refuses_another_inbox_another_secret_and_every_changed_letter",
        f"{_LISTEN}test_it_says_resync_for_somebody_elses_id",
    ),
    mutant(
        "a message that is recorded again becomes unread again",
        "D1",
        "messaging/statements.py",
        'SET {known_at} = excluded.{known_at}"\n'
        '        f" WHERE {receipt}.{came_late} AND excluded.{came_late}'
        ' AND excluded.{known_at} < {receipt}.{known_at}"\n',
        'SET read_at = excluded.read_at"\n',
        f"{_STORE}test_what_was_read_stays_read_when_it_is_recorded_again_in_the_same_batch",
    ),
    mutant(
        "of a message that is twice in a batch the first is taken, wherever it is settled",
        "D1",
        "messaging/unread.py",
        "        if receipt.order > topics[receipt.inbox_id, receipt.key].floor:",
        "        if True:",
        f"{_STORE}test_a_message_that_is_settled_in_one_topic_counts_in_another_of_the_same_batch",
    ),
    mutant(
        "a batch counts as written though some of its topics aren't there",
        "D1",
        "messaging/unread.py",
        "insert_receipts_at_once(receipts) == len(sheet.topics)",
        "insert_receipts_at_once(receipts) <= len(sheet.topics)",
        f"{_STORE}test_topics_of_any_name_are_kept_apart",
    ),
    # -- D2: only Chat from the agent counts ---------------------------------------------------------------------
    mutant(
        "every type from the agent counts",
        "D2",
        "messaging/wire.py",
        '        return self.direction == "Outgoing" and self.kind == "Chat"\n',
        '        return self.direction == "Outgoing"\n',
        f"{_UNREAD}test_it_counts_only_chat_from_the_agent",
        f"{_STORE}test_only_answers_count",
    ),
    mutant(
        "the person's own messages count",
        "D2",
        "messaging/wire.py",
        '        return self.direction == "Outgoing" and self.kind == "Chat"\n',
        '        return self.kind == "Chat"\n',
        f"{_STORE}test_only_answers_count",
    ),
    mutant(
        "a late message that doesn't count is stored as unread",
        "D2",
        "messaging/changes.py",
        "            read_at=None if message.is_answer else self.known_at,\n",
        "            read_at=None,\n",
        f"{_STORE}test_only_answers_count",
    ),
    # -- D3: read where it is shown, and only there --------------------------------------------------------------
    mutant(
        "what is sent to a reader that shows its topic is not read",
        "D3",
        "messaging/streams.py",
        "        if message is not None and message.is_answer and message.scope == self._wishes.shows:\n",
        "        if message is not None and message.is_answer and message.scope == NotImplemented:\n",
        f"{_UNREAD}test_it_reads_a_topic_that_a_listener_shows",
    ),
    mutant(
        "a hidden tab reads",
        "D3",
        "static/js/read.js",
        "  if (!thread || !messages || document.hidden) return;\n",
        "  if (!thread || !messages) return;\n",
        f"{_JOURNEYS}test_confirming.py::test_a_hidden_tab_confirms_nothing_before_it_is_looked_at",
    ),
    mutant(
        "a page never confirms",
        "D3",
        "static/js/read.js",
        "  confirmed.set(key, seen);\n",
        "  return;\n",
        f"{_JOURNEYS}test_confirming.py::test_a_hidden_tab_confirms_nothing_before_it_is_looked_at",
        f"{_JOURNEYS}test_conversation.py::test_a_badge_grows_and_goes_when_the_topic_is_opened_in_another_tab_too",
    ),
    # -- D4: opening a topic reads all of it, and nothing that isn't shown ---------------------------------------
    mutant(
        "reading up to a message reads what is behind it",
        "D4",
        "messaging/unread.py",
        "    due = sorted(pk for pk, order in rows if change.up_to is None or order <= change.up_to)\n",
        "    due = sorted(pk for pk, order in rows)\n",
        f"{_STORE}test_it_reads_up_to_a_place_and_named_messages_only",
        f"{_UNREAD}test_it_reads_up_to_a_message",
        f"{_JOURNEYS}test_confirming.py::test_the_page_confirms_what_it_displays_and_no_more",
    ),
    mutant(
        "a page confirms everything instead of what it displays",
        "D4",
        "static/js/read.js",
        "upTo: newest });\n",
        'upTo: "" });\n',
        f"{_JOURNEYS}test_confirming.py::test_the_page_confirms_what_it_displays_and_no_more",
    ),
    mutant(
        "opening a topic doesn't look for what came while nobody listened",
        "D4",
        "messaging/streams.py",
        "            if not feed.is_complete:  # opening a topic",
        "            if False:  # opening a topic",
        f"{_UNREAD}test_opening_a_topic_reads_what_came_while_nobody_listened",
    ),
    mutant(
        "a read overtakes what was recorded before it",
        "D4",
        "messaging/unread.py",
        "            _insert(records, topics)\n            records = []\n            _read_up_to(change, topics) if",
        "            _read_up_to(change, topics) if",
        f"{_STORE}test_what_comes_after_a_read_is_unread",
    ),
    # -- D5: in the database, the same in every process, within a second -----------------------------------------
    mutant(
        "the other processes are not told",
        "D5",
        "messaging/ledger.py",
        "                self._hub.tell(person_key(inbox.address.participant_id), "
        '{"what": what, "inbox": inbox.told()})\n',
        "                pass\n",
        f"{_PROMISES}test_a_tab_of_another_process_that_hears_nothing_itself_is_told",
    ),
    mutant(
        "the tabs of this process are not told",
        "D5",
        "messaging/ledger.py",
        "                        self._show(person, inbox, by_topic)\n",
        "                        pass\n",
        f"{_UNREAD}test_it_tells_every_tab_of_a_read_within_a_second",
    ),
    mutant(
        "a count that finds no company is never told",
        "D5",
        "messaging/ledger.py",
        "                self._telling = asyncio.get_running_loop().call_later(wait, self._tell_lonely)\n",
        "                pass\n",
        f"{_COMPANY}test_a_count_that_finds_no_company_goes_by_itself",
    ),
    mutant(
        "a count that found no company waits for its reader's own message only",
        "D5",
        "messaging/ledger.py",
        "                self._tell_next(soon)\n",
        "                pass\n",
        f"{_COMPANY}test_a_count_whose_time_is_nearly_up_goes_when_somebody_else_gets_a_message",
    ),
    mutant(
        "a count waits from the end of its batch on",
        "D5",
        "messaging/ledger.py",
        "    return {inbox: since + _COMPANY_SECONDS for",
        "    return {inbox: time.monotonic() + _COMPANY_SECONDS for",
        f"{_COMPANY}test_a_count_waits_from_its_own_answer_on",
    ),
    mutant(
        "what was read waits for company, too",
        "D5",
        "messaging/ledger.py",
        " for inbox, since in sheet.since.items() if inbox not in sheet.others}\n",
        " for inbox, since in sheet.since.items()}\n",
        f"{_COMPANY}test_what_somebody_read_is_told_at_once",
    ),
    mutant(
        "counts are kept in memory instead of the database",
        "D5",
        "messaging/ledger.py",
        "            await self.run(unread.write, sheet)\n",
        "            return\n",
        f"{_UNREAD}test_it_counts_each_answer_once_and_remembers_over_a_restart",
    ),
    # -- D6: what arrived while nobody was connected -------------------------------------------------------------
    mutant(
        "a visit doesn't look for what came in between",
        "D6",
        "messaging/inboxes.py",
        "    await refresh_if_possible(runtime, inbox, access)\n    await runtime.ledger.flush()\n",
        "    await runtime.ledger.flush()\n",
        f"{_UNREAD}test_it_counts_what_came_while_nobody_was_connected",
    ),
    mutant(
        "a visit takes a look that began before it for its own",
        "D6",
        "messaging/visits.py",
        "        runtime.refreshed[inbox.address] = begun\n",
        "        runtime.refreshed[inbox.address] = time.monotonic()\n",
        f"{_UNREAD}test_it_counts_what_came_while_an_earlier_question_was_under_way",
    ),
    mutant(
        "what a visit finds is settled without being recorded",
        "D6",
        "messaging/visits.py",
        "        ledger.record(inbox, message)\n        if count % _WRITTEN_AT_ONCE == 0:\n",
        "        if count % _WRITTEN_AT_ONCE == 0:\n",
        f"{_UNREAD}test_it_counts_what_came_while_nobody_was_connected",
    ),
    # -- D7: the first visit starts at zero ----------------------------------------------------------------------
    mutant(
        "the first visit sets no floor",
        "D7",
        "messaging/unread.py",
        "                floor=settled.get(topic.scope) or behind(topic.last_message_at),\n",
        "",
        f"{_STORE}test_the_first_visit_settles_what_is_there",
    ),
    mutant(
        "the floor guards nothing",
        "D7",
        "messaging/statements.py",
        "WHERE given.{order} > found.{floor} {by_bytes} ORDER",
        "WHERE true ORDER",
        f"{_STORE}test_the_first_visit_settles_what_is_there",
        f"{_STORE}test_a_deleted_topic_takes_what_was_seen_and_leaves_what_came_later",
    ),
    mutant(
        "the first visit settles nothing",
        "D7",
        "messaging/visits.py",
        "open_inbox, address, found.topics, settled)",
        "open_inbox, address, [], {})",
        f"{_UNREAD}test_it_starts_at_zero_whatever_upstream_holds_already",
    ),
    # -- sending exactly once ------------------------------------------------------------------------------------
    mutant(
        "a request id that has arrived is sent again",
        "send",
        "messaging/outbox.py",
        "    if row.thread_id:\n        return Claim(thread_id=row.thread_id)\n",
        "    if row.thread_id:\n        return Claim(is_ours=True)\n",
        f"{_API}test_the_same_request_id_sends_once",
    ),
    mutant(
        "a repeat doesn't look whether the first arrived",
        "send",
        "messaging/outbox.py",
        "    return Claim(is_ours=True, may_have_arrived=True)\n",
        "    return Claim(is_ours=True)\n",
        f"{_API}test_it_looks_in_history_before_it_sends_again",
    ),
    mutant(
        "an unanswered send is taken for one that never arrived",
        "send",
        "messaging/sending.py",
        "        await runtime.ledger.run(outbox.unsure, inbox, outgoing.request_id)\n",
        "        await runtime.ledger.run(outbox.refused, inbox, outgoing.request_id)\n",
        f"{_API}test_it_looks_in_history_before_it_sends_again",
    ),
    mutant(
        "two processes may send one request id at the same time",
        "send",
        "messaging/outbox.py",
        "        return Claim()\n",
        "        return Claim(is_ours=True)\n",
        f"{_PROMISES}test_two_processes_send_a_request_id_once",
    ),
    # -- isolation -----------------------------------------------------------------------------------------------
    mutant(
        "anybody is a member of every tenant",
        "tenant",
        "messaging/inboxes.py",
        "        if tenant.tenant_id == tenant_id:\n            return tenant\n",
        "        return replace(tenant, tenant_id=tenant_id)\n",
        f"{_UNREAD}test_bob_sees_nothing_of_alices",
    ),
    mutant(
        "what upstream sends to the wrong stream is shown",
        "tenant",
        "messaging/feeds.py",
        "        if stranger:\n",
        "        if False:\n",
        f"{_LISTEN}test_it_drops_what_it_cannot_read_and_what_names_somebody_else",
    ),
    # -- the event stream's bytes (issue 3: fuzzing) -------------------------------------------------------------
    mutant(
        "a line that comes at once may be longer than one that is cut",
        "bytes",
        "messaging/sse.py",
        "            if len(rest) > self._max_bytes:\n",
        "            if len(value) > self._max_bytes:\n",
        f"{_SSE}test_its_limit_is_the_same_however_a_line_is_cut",
    ),
    mutant(
        "a CRLF that is cut between two chunks is two line ends",
        "bytes",
        "messaging/sse.py",
        '        self._after_cr = chunk.endswith(b"\\r")\n',
        "        self._after_cr = False\n",
        f"{_FUZZ}test_it_says_the_same_byte_by_byte",
        f"{_SSE}test_it_reads_the_case_however_it_is_cut",
    ),
    mutant(
        "an endless comment is stored",
        "bytes",
        "messaging/sse.py",
        "            self._skipping = True\n            self._line.clear()\n",
        "            pass\n",
        f"{_FUZZ}test_it_never_holds_more_than_its_limit",
    ),
    mutant(
        "a line end inside data makes another event",
        "bytes",
        "messaging/sse.py",
        '    if "\\n" in data or "\\r" in data:\n',
        '    if "\\n" in data:\n',
        f"{_FUZZ}test_what_is_written_is_read_and_nothing_else",
        f"{_BROWSER}test_the_page_reads_what_we_write_and_nothing_else",
    ),
]
