"""The breaks, by rule of docs/ARCHITECTURE.md and by clause. Each says why it would lose data.

A mutation that changes more than one place defeats several safeguards at once: each alone is made up for by another.
"""

from tests.simulation.mutations.mutation import Change, Mutation

_ADMISSION = "services/write_cloning/admitting.py"
_DECISIONS = "services/write_cloning/migration.py"
_EXECUTOR = "services/write_cloning/executor.py"
_APPARATUS = "services/write_cloning/apparatus.py"
_COPIER = "services/write_cloning/copier.py"
_FENCES = "services/write_cloning/fences.py"
_LEFT_BEHIND = "services/write_cloning/left_behind.py"
_MARKS = "services/write_cloning/volume/marks.py"
_MAP_DECISIONS = "services/write_cloning/map_decisions.py"
_MAP_TAKEOVER = "services/write_cloning/map_takeover.py"
_VOUCHING = "services/write_cloning/vouching.py"
_UNALIGNED = "services/write_cloning/volume/unaligned.py"
_VOLUME = "services/write_cloning/volume/volume.py"
_FAILOVER = "services/write_cloning/volume/failover.py"
_OPENING = "services/write_cloning/opening.py"
_ORDER = "services/write_cloning/volume/ordering.py"
_ENTERING = "services/state_control/entering.py"
_EVIDENCE = "services/startup/evidence.py"
_REPLAY = "services/startup/replay.py"
_KEEPER = "services/write_cloning/keeper.py"
_MAP_KEEPER = "services/write_cloning/map_keeper.py"
_TABLE = "shared/migration/table.py"
_VERDICTS = "shared/migration/verdicts.py"
_LEDGER = "shared/migration/ledger.py"

MUTATIONS: tuple[Mutation, ...] = (
    # ------------------------------------------------------------------ R1
    Mutation(
        "witness-not-written-before-open",
        "R1",
        "a crash in this run would be judged by the witness of an earlier one",
        (
            Change(
                _OPENING,
                "        await _write(witness, around)\n    except OSError as error:\n        await maps.release()",
                "        pass\n    except OSError as error:\n        await maps.release()",
            ),
        ),
    ),
    Mutation(
        "opened-on-the-witness-alone",
        "R1",
        "a device would be used before anybody has looked whether this run may",
        (
            Change(
                _ADMISSION,
                "        reply = _together([await self._request(part) for part in _parts(question)])\n",
                "        for each in witnesses:\n"
                '            if each.state is not None and each.authority == "source":\n'
                "                early = await self._around.opener.open_recorded(each.devices.source, is_target=False)\n"
                "                early.flush(lambda _context, _error: None, None)\n"
                "                await early.close()\n"
                "        reply = _together([await self._request(part) for part in _parts(question)])\n",
            ),
        ),
    ),
    # ------------------------------------------------------------------ R2
    Mutation(
        "flag-cleared-while-cloning",
        "R2",
        "after a crash the target would pass for one that holds every write",
        (Change(_TABLE, "_SWITCH_READS = (\n", "_SWITCH_READS = (\n    Step.CLEAR_FLAG,\n"),),
        first_seed=15,
    ),
    Mutation(
        "flag-not-set-anew-on-resume",
        "R2",
        "writes would be cloned under a flag that is clear",
        (
            Change(
                _VERDICTS,
                "        target_fault=False,\n        remedies=(Remedy.SET_FLAG,),",
                "        target_fault=False,\n        remedies=(),",
            ),
        ),
        first_seed=12,
    ),
    # ------------------------------------------------------------------ R3
    Mutation(
        "one-side-is-enough",
        "R3",
        "an acknowledged write would be missing on the target",
        (
            Change(
                _VOLUME,
                "        waiting ^= SOURCE\n        request.waiting = waiting\n        if not waiting:",
                "        request.waiting = waiting = 0\n        if not waiting:",
            ),
        ),
        first_seed=1,
    ),
    Mutation(
        "target-alone-is-enough",
        "R3",
        "an acknowledged write would be missing on the authority",
        (
            Change(
                _VOLUME,
                "        waiting ^= TARGET\n        request.waiting = waiting\n        if not waiting:",
                "        request.waiting = waiting = 0\n        if not waiting:",
            ),
        ),
    ),
    Mutation(
        "dropped-target-not-withheld",
        "R3",
        "what the target misses would be acknowledged before the witness knows that it misses something",
        (
            Change(
                _FAILOVER,
                "            self.drop(Side.TARGET, withhold=True)\n            self._listener",
                "            self.drop(Side.TARGET, withhold=False)\n            self._listener",
            ),
        ),
        first_seed=14,
    ),
    Mutation(
        "lost-source-write-acknowledged",
        "R3",
        "a write that the authority has failed would be acknowledged without moving the authority",
        (
            Change(
                _FAILOVER,
                "                self._failed_on_source.add(request)\n                self._lose_source(failure)\n",
                "                request.error = 0\n                self.advance(request)\n                return\n",
            ),
        ),
        first_seed=19,
    ),
    # ------------------------------------------------------------------ R4
    Mutation(
        "overlapping-writes-not-ordered",
        "R4",
        "of two overlapping writes one device would keep the first, the other the second",
        (Change(_ORDER, "entry.blockers += 1", "entry.blockers += 0"),),
    ),
    Mutation(
        "ordered-in-the-first-region-only",
        "R4",
        "writes that overlap in their second region would not be ordered",
        (Change(_ORDER, "last = entry.high - 1 >> shift", "last = region"),),
    ),
    Mutation(
        "copier-excludes-too-little",
        "R4",
        "the copier would overwrite newer data with older",
        (Change(_COPIER, "self._volume.exclude(low, high)", "self._volume.exclude(low, low + 512)"),),
        first_seed=32,
    ),
    Mutation(
        "unequal-after-source-failure",
        "4.5",
        "the target would hold a write that the source has failed",
        (
            Change(
                _FAILOVER,
                "if request.kind is not Kind.FLUSH and request.sides & TARGET:\n                request.waiting",
                "if False:\n                request.waiting",
            ),
        ),
        first_seed=135,
    ),
    # ------------------------------------------------------------------ R5
    Mutation(
        "commit-without-flush",
        "R5",
        "the target would hold the authority, and what was flushed before only in its cache",
        (
            Change(
                _TABLE,
                "            Step.FLUSH_TARGET,\n            Step.WRITE_WITNESS,\n            Step.SWITCH_ROUTING,\n"
                "            Step.REPORT_FAULTS,",
                "            Step.WRITE_WITNESS,\n            Step.SWITCH_ROUTING,\n            Step.REPORT_FAULTS,",
            ),
        ),
        first_seed=1408,
    ),
    Mutation(
        "source-lost-without-flush",
        "R5",
        "the target would hold the authority, and what was flushed before only in its cache",
        (
            Change(
                _TABLE,
                "            Step.FLUSH_TARGET,\n            Step.WRITE_WITNESS,\n            Step.SWITCH_ROUTING,\n"
                "            Step.RELEASE_WRITES,\n            Step.REPORT_FAULTS,",
                "            Step.WRITE_WITNESS,\n            Step.SWITCH_ROUTING,\n            Step.RELEASE_WRITES,\n"
                "            Step.REPORT_FAULTS,",
            ),
            Change(
                _TABLE,
                "steps=(Step.FLUSH_TARGET, Step.HOLD_WRITES, Step.FLUSH_TARGET, *_SWITCH_READS)",
                "steps=(Step.HOLD_WRITES, *_SWITCH_READS)",
            ),
        ),
        first_seed=644,
    ),
    Mutation(
        "source-dropped-before-the-witness",
        "R5",
        "after a crash the source would be the authority again, without the writes that only the target got",
        (
            Change(
                _EXECUTOR,
                "            self._apparatus.volume.failover.begin_move()",
                "            self._apparatus.volume.failover.drop(Side.SOURCE, withhold=False)\n"
                "            self._apparatus.volume.failover.begin_move()",
            ),
        ),
        first_seed=587,
    ),
    Mutation(
        "unequal-after-a-failed-move",
        "4.4",
        "the target would hold a write that the source, still the authority, has failed",
        (
            Change(
                _FAILOVER,
                "            if request.kind is not Kind.FLUSH:\n                request.waiting |= RECOPY",
                "            if False:\n                request.waiting |= RECOPY",
            ),
        ),
        first_seed=1852,
    ),
    # ------------------------------------------------------------------ R6
    Mutation(
        "target-reopened-too-early",
        "R6",
        "a write of an earlier attempt would land on newer data",
        (
            Change(_LEFT_BEHIND, "if not (count := sum(", "if not (count := 0 * sum("),
            Change(_ENTERING, "if count := view.outstanding_target_requests:", "if count := 0:"),
        ),
        first_seed=21,
    ),
    Mutation(
        "remote-sides-not-named",
        "R6",
        "after a kill nobody would know that a remote device may still be written to over the old connection",
        (
            Change(
                _FENCES,
                "    return tuple(side for side in used if side in devices.remote_sides)",
                "    return ()",
            ),
        ),
        first_seed=94,
    ),
    Mutation(
        "no-doubt-without-a-witness",
        "R6",
        "what the lost witness named would be used again at once",
        (Change(_FENCES, "devices.remote_sides if earlier is None", "() if earlier is None"),),
        first_seed=1901,
    ),
    Mutation(
        "doubt-forgotten-at-the-next-start",
        "R6",
        "a target in doubt would be copied to after one more restart, without a word",
        (
            Change(
                _FENCES,
                "    return (*used, *(side for side in in_doubt if side not in used))",
                "    return used",
            ),
        ),
        first_seed=151,
    ),
    Mutation(
        "word-believed-for-the-connection-in-use",
        "R6",
        "a connection that was opened after the word, or goes on, may leave requests behind as ever",
        (
            Change(
                _VOUCHING,
                "            await self._keeper.remember(unfenced=unfenced)",
                "            await self._keeper.remember(unfenced=())",
            ),
        ),
        first_seed=1287,
    ),
    Mutation(
        "late-word-believed",
        "R6",
        "a word that comes late would be believed for a connection that was broken after it had been given",
        (Change(_FENCES, "    if request.doubt not in {None, doubt}:", "    if False:"),),
        first_seed=1805,
    ),
    Mutation(
        "sync-gives-the-word-itself",
        "R6",
        "a write of an earlier attempt would land at the server on newer data",
        (
            Change(
                _APPARATUS,
                "        self.left_behind.refuse()\n        if (",
                "        self.left_behind.vouch()\n        if (",
            ),
            Change(_ENTERING, "if count := view.outstanding_target_requests:", "if count := 0:"),
        ),
        first_seed=58,
    ),
    Mutation(
        "broken-connection-made-again-silently",
        "R6",
        "what the old connection has lost would land on what is written over the new one",
        (
            Change(
                _LEFT_BEHIND,
                "        if device in self._retired and not (isinstance(device, Unfenced) and device.outstanding):\n",
                "        if isinstance(device, Unfenced):\n"
                "            device.vouch_gone()\n"
                "        if device in self._retired:\n",
            ),
        ),
        first_seed=627,
    ),
    Mutation(
        "left-behind-at-a-clean-stop",
        "R6",
        "a clean stop would make it forgotten what a target that was let go of has not answered",
        (
            Change(
                _LEFT_BEHIND,
                "        return tuple(side for side in Side if side in held or side in",
                "        return tuple(side for side in Side if False and side in",
            ),
        ),
        first_seed=1127,
    ),
    Mutation(
        "cleanup-does-not-wait-for-the-word",
        "R6",
        "the next migration would use a device on which requests of the last one may still land",
        (
            Change(
                _DECISIONS, "            self.apparatus.left_behind.refuse_unfenced()  #", "            #"
            ),
            Change(
                _EXECUTOR,
                "            self._apparatus.left_behind.refuse_unfenced()  #",
                "            pass  #",
            ),
        ),
        first_seed=1223,
    ),
    Mutation(
        "broken-connection-in-use-forgotten",
        "R6",
        "a cleanup would forget what a source that has broken in setup may still be given",
        (
            Change(
                _LEFT_BEHIND,
                "        return [*self._retired, *self.broken]",
                "        return [*self._retired]",
            ),
        ),
        first_seed=1223,
    ),
    # ------------------------------------------------------------------ R7
    Mutation(
        "contradiction-admitted",
        "R7",
        "a volume would open on a side that nobody has proved",
        (Change(_VERDICTS, "        admit=False,\n", "        admit=True,\n"),),
        first_seed=24,
    ),
    # ------------------------------------------------------------------ 4.1
    Mutation(
        "cloning-before-the-witness",
        "4.1",
        "after a crash nobody would know that the target was written",
        (
            Change(
                _EXECUTOR,
                "                await self._write_decision(decision)\n",
                "                if decision.row.trigger is Trigger.SYNC:\n"
                "                    apparatus.switch_routing(State.SYNCING, Side.SOURCE)\n"
                "                    apparatus.release_writes()\n"
                "                await self._write_decision(decision)\n",
            ),
        ),
        first_seed=1,
    ),
    Mutation(
        "flag-withdrawn-though-entered",
        "4.1",
        "writes would be cloned under a flag that is clear",
        (
            Change(_ENTERING, "            await self._refuse_if_entered(origin)\n", ""),
            Change(_ENTERING, "        except UnknownOutcome:\n            raise\n", ""),
        ),
        first_seed=723,
    ),
    # ------------------------------------------------------------------ 4.2
    Mutation(
        "answered-before-the-witness",
        "4.2",
        "a write that the target misses would be acknowledged while the witness still trusts the target",
        (
            Change(
                _TABLE,
                "_FAIL_TARGET = (Step.DROP_TARGET, Step.WRITE_WITNESS,",
                "_FAIL_TARGET = (Step.DROP_TARGET, Step.RELEASE_WRITES, Step.WRITE_WITNESS,",
            ),
            Change(
                _EXECUTOR,
                "        if self.has_lost_target:\n            self._apparatus.volume.release()  #",
                "        if False:\n            self._apparatus.volume.release()  #",
            ),
        ),
        first_seed=1,
    ),
    # ------------------------------------------------------------------ 4.3
    Mutation(
        "clear-without-the-authority's-flush",
        "4.3",
        "the authority would miss what its failed flush has lost, and the target would be taken for its equal",
        (
            Change(
                _DECISIONS,
                "            if failure is not None:\n                log.error(",
                "            if False:\n                log.error(",
            ),
        ),
        first_seed=15,
    ),
    Mutation(
        "stopped-without-draining",
        "4.3",
        "writes that are answered after the last flush would be lost by a power cut after a clean stop",
        (
            Change(
                _VOLUME,
                "        await self._stillness.until(self._has_no_request, ends_with_failure=False)\n",
                "",
            ),
        ),
        first_seed=1163,
    ),
    Mutation(
        "target-not-flushed-at-the-stop",
        "4.3",
        "a power cut after a clean stop would leave the sides different",
        (Change(_APPARATUS, "if other is not None and (failure :=", "if other is None and (failure :="),),
        first_seed=190,
    ),
    # ------------------------------------------------------------------ 4.5
    Mutation(
        "unreadable-taken-for-copied",
        "4.5",
        "a region that the source could not give would count as the same on both sides",
        (Change(_COPIER, "        return not self._unreadable\n", "        return True\n"),),
        first_seed=700,
    ),
    Mutation(
        "copied-over-a-failed-flush",
        "4.5",
        "what the source has lost would be copied over what the target still has",
        (
            Change(
                _TABLE,
                "guards=(Guard.NO_TARGET_FAULT, Guard.NO_SOURCE_FLUSH_FAULT)",
                "guards=(Guard.NO_TARGET_FAULT,)",
            ),
        ),
        first_seed=21,
    ),
    Mutation(
        "in-sync-without-asking-the-source",
        "4.5",
        "what was copied may be what the source's cache went back to when it lost newer writes",
        (
            Change(
                _TABLE,
                "steps=(Step.FLUSH_SOURCE, Step.WRITE_WITNESS, Step.SWITCH_ROUTING, Step.REPORT_DECISION)",
                "steps=(Step.WRITE_WITNESS, Step.SWITCH_ROUTING, Step.REPORT_DECISION)",
            ),
        ),
        first_seed=12,
    ),
    Mutation(
        "blocks-filled-up-from-the-source-alone",
        "4.5",
        "what the source's cache went back to would be laid over what the target has",
        (
            Change(
                _UNALIGNED,
                "self._reads.start_from(reading, reading.cookie, start)",
                "self._reads.start_from(reading, SOURCE if sides & SOURCE else TARGET, start)",
            ),
        ),
        first_seed=1846,
    ),
    Mutation(
        "blocks-filled-up-from-the-target-alone",
        "4.5",
        "what the target's cache went back to would be laid over what the source, the authority, has",
        (
            Change(
                _UNALIGNED,
                "self._reads.start_from(reading, reading.cookie, start)",
                "self._reads.start_from(reading, TARGET if sides & TARGET else SOURCE, start)",
            ),
        ),
        first_seed=2,
    ),
    Mutation(
        "back-to-a-source-that-was-not-asked",
        "4.5",
        "reads would go back to a source that has lost what the target has",
        (
            Change(
                _TABLE,
                "steps=(Step.FLUSH_SOURCE, Step.HOLD_WRITES, Step.FLUSH_SOURCE, *_SWITCH_READS)",
                "steps=(Step.HOLD_WRITES, *_SWITCH_READS)",
            ),
        ),
        first_seed=1498,
    ),
    Mutation(
        "failed-flush-of-a-durable-write-forgotten",
        "4.5",
        "what the source has lost would be copied over what the target still has",
        (Change(_FAILOVER, "if request.durable and route.source.flush_error:", "if False:"),),
        first_seed=853,
    ),
    # ------------------------------------------------------------------ 4.6
    Mutation(
        "repair-leaves-the-flag",
        "4.6",
        "a journal that was repaired would prove a clean stop",
        (
            Change(
                _LEDGER,
                "                self._flag, self._flag_entry = Flag.SET, entry\n                sides",
                "                sides",
            ),
            Change(
                _EVIDENCE,
                "return ledger.state in CLONING_STATES and not _knows_of_clear(witness, ledger.flag_entry)",
                "return False",
            ),
        ),
        first_seed=466,
    ),
    Mutation(
        "decision-not-caught-up",
        "4.6",
        "a decision of the host would be undone by its restart",
        (Change(_REPLAY, "if ledger.decision < witness.decision:", "if False:"),),
        first_seed=2,
    ),
    Mutation(
        "faults-not-caught-up",
        "4.6",
        "what a device has failed before a crash would be known to nobody but the host",
        (Change(_REPLAY, "for fault in witness.faults\n", "for fault in ()\n"),),
        first_seed=35,
    ),
    Mutation(
        "decided-in-memory-alone",
        "4.6",
        "after a crash the host would not know what it has answered",
        (
            Change(
                _KEEPER,
                "            await self._witnesses.write(witness)\n",
                "            if witness.decision == self.witness.decision:\n"
                "                await self._witnesses.write(witness)\n",
            ),
        ),
    ),
    Mutation(
        "unclean-taken-for-resume",
        "4.6",
        "the target may miss writes that the source has",
        (
            Change(
                _VERDICTS,
                "        flag_set=False,\n        target_fault=False,\n",
                "        flag_set=None,\n        target_fault=False,\n",
            ),
            Change(_REPLAY, "if not is_set_in_vain(ledger, witness):", "if ledger.flag is not Flag.SET:"),
        ),
        first_seed=8,
    ),
    # ------------------------------------------------------------------ 4.7
    Mutation(
        "clean-without-the-target's-flush",
        "4.7",
        "after a power cut the target would lack what the source has, in a region that is not copied",
        (
            Change(
                _APPARATUS,
                "            self._flush(target, Side.TARGET), self._flush",
                "            asyncio.sleep(0), self._flush",
            ),
        ),
        first_seed=56,
    ),
    Mutation(
        "clean-without-the-source's-flush",
        "4.7",
        "after a power cut the source would lack what the target has, in a region that is not copied",
        (
            Change(
                _APPARATUS,
                "self._flush_as_application() if could_be_clean else _no_error()",
                "_no_error()",
            ),
        ),
        first_seed=206,
    ),
    Mutation(
        "clean-although-written-since",
        "4.7",
        "a write that came after the flushes had begun would not be copied after a power cut",
        (
            Change(
                _MARKS,
                "            if states[region] == AGING:\n                self._clean",
                "            if True:\n                self._clean",
            ),
        ),
        first_seed=396,
    ),
    Mutation(
        "clean-with-a-write-under-way",
        "4.7",
        "a write that the flushes do not cover would not be copied after a power cut",
        (Change(_MARKS, "            if region in busy:\n                continue\n", ""),),
        first_seed=1518,
    ),
    Mutation(
        "distrust-not-durable",
        "4.7",
        "a map that lacks the last writes would be believed at the next start",
        (Change(_MAP_KEEPER, "            await distrust(because)\n", ""),),
        first_seed=846,
    ),
    Mutation(
        "given-up-map-still-trusted",
        "4.7",
        "a map that was given up for a sync that did not come about would record nothing, and be believed",
        (
            Change(
                _MAP_DECISIONS, 'if self._keeper.witness.region_map not in {"", maps.map_id}:', "if False:"
            ),
        ),
        first_seed=1378,
    ),
    Mutation(
        "writes-in-setup-not-due",
        "4.7",
        "what the source alone was given after an unclean stop would not be copied",
        (Change(_APPARATUS, "marks_as_due = state is State.SETUP", "marks_as_due = False"),),
        first_seed=68,
    ),
    Mutation(
        "due-forgotten-at-the-stop",
        "4.7",
        "a copy that was half done would count as done after a clean restart",
        (
            Change(
                _MARKS, "_ONLY_DUE = bytes(DUE if state == DUE else CLEAN for", "_ONLY_DUE = bytes(CLEAN for"
            ),
        ),
        first_seed=344,
    ),
    Mutation(
        "marks-taken-over-as-copied",
        "4.7",
        "what may differ after an unclean stop would not be copied",
        (
            Change(
                _MAP_TAKEOVER,
                "is_copied = changed is None and is_target_open and admission.state in IN_SYNC_STATES",
                "is_copied = changed is None and is_target_open and admission.state is not State.SYNCING",
            ),
        ),
        first_seed=46,
    ),
    Mutation(
        "map-trusted-after-a-fault",
        "4.7",
        "what a target that had failed was not given would not be copied",
        (
            Change(
                _MAP_DECISIONS,
                "    if row.after is State.SETUP and row.before is not None:",
                "    if False:",
            ),
        ),
        first_seed=67,
    ),
)
