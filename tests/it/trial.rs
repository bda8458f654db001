//! `piton test`: cases of test files, and the sweep.

use super::cli::Desk;

const RUNBOOK: &str = "params: { loud: { type: boolean, default: false } }
on_failure: rollback
steps:
  - { id: look, exec: { argv: [uname], outputs: { system: { stdout: true } } }, idempotent: yes }
  - { id: copy, needs: [look], exec: { argv: [cp, '{{ steps.look.outputs.system }}'] }, undo: { exec: { argv: [rm] } } }
  - { id: go, needs: [copy], approval: { prompt: 'Go?', quorum: 2 } }
  - { id: shout, needs: [go], when: params.loud, exec: { argv: [shout] }, undo: { exec: { argv: [hush] } }, timeout: 1m }
  - { id: pause, needs: [shout], wait.for: { duration: 2h } }
  - { id: last, needs: [pause], exec: { argv: [last] }, retry: { attempts: 3, backoff: { initial: 10m } }, idempotent: yes }
finally:
  - { id: tell, exec: { argv: [tell] } }
";

const CASES: &str = "apiVersion: piton/v1
kind: Test
cases:
  - name: all goes well, in hours that take no time
    expect: { outcome: succeeded, steps: { last: succeeded, shout: skipped, tell: succeeded } }
  - name: a crash behind the copy is decided by what is there
    mocks: { copy: { crash: after, outputs: {} }, look: { outputs: { system: Linux } } }
    expect: { outcome: succeeded, undone: [] }
  - name: people say no
    mocks: { go: { answer: reject } }
    expect: { outcome: rolled_back, undone: [copy], steps: { go: failed, tell: succeeded } }
  - name: nobody answers
    mocks: { go: { answer: nothing } }
    expect: { outcome: waiting }
  - name: it fails twice and then works
    mocks: { last: { fail: { times: 2 } } }
    expect: { outcome: succeeded }
  - name: shouting takes too long
    params: { loud: true }
    mocks: { shout: { takes: 2m } }
    expect: { outcome: rolled_back, undone: [shout, copy] }
";

fn desk() -> Desk {
    let desk = Desk::new();
    desk.runbook("small", RUNBOOK);
    desk
}

#[test]
fn cases_are_lived_through_and_judged() {
    let desk = desk();
    desk.piton(&["test", "small.yaml"]).exits(2);
    desk.write("small.test.yaml", CASES);
    let said = desk.piton(&["test", "small.yaml"]).exits(0);
    assert!(said.out.ends_with("6 of 6 cases as expected\n"), "{}", said.out);
    let wrong = CASES.replace("undone: [shout, copy]", "undone: [copy, shout]").replace("go: failed", "go: skipped");
    desk.write("wrong.test.yaml", &wrong);
    let said = desk.piton(&["test", "small.yaml", "wrong.test.yaml"]).exits(4);
    for part in ["4 of 6 cases", "wrong.test.yaml:11:66: step `go`", "wrong.test.yaml:21:45: `copy, shout`"] {
        assert!(said.out.contains(part), "{part} in {}", said.out);
    }
    let json = desk.piton(&["test", "small.yaml", "wrong.test.yaml", "--json"]).exits(4).json();
    assert_eq!((&json["passed"], &json["cases"][0]["passed"]), (&false.into(), &true.into()));
}

#[test]
fn mistakes_in_a_test_file_are_shown_at_their_place() {
    let desk = desk();
    desk.write(
        "small.test.yaml",
        &CASES.replace("answer: reject", "answer: perhaps").replace("crash: after", "krash: after"),
    );
    let said = desk.piton(&["test", "small.yaml"]).exits(3);
    for part in ["small.test.yaml:10:", "`perhaps`", "small.test.yaml:7:", "`krash`"] {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    desk.write(
        "small.test.yaml",
        &CASES.replace("mocks: { go: { answer: reject } }", "mocks: { gone: { answer: reject } }"),
    );
    let said = desk.piton(&["test", "small.yaml"]).exits(3);
    assert!(said.err.contains("no step `gone`") && said.err.contains("did you mean `go`?"), "{}", said.err);
}

#[test]
fn a_sweep_goes_through_every_failure_and_crash_and_finds_the_rules_kept() {
    let desk = desk();
    let said = desk.piton(&["test", "small.yaml", "--sweep", "--param", "loud=true"]).exits(0);
    for part in ["a crash after append", "a step acts twice", "branches were taken"] {
        assert!(said.out.contains(part), "{part} in {}", said.out);
    }
    let json = desk.piton(&["test", "small.yaml", "--sweep", "--json"]).exits(0).json();
    let scenarios = json["sweep"]["scenarios"].as_array().expect("a list");
    let ended = |name: &str, outcome: &str| {
        let mut named = scenarios.iter().filter(|one| one["name"].as_str().is_some_and(|text| text.starts_with(name)));
        assert!(named.any(|one| one["outcome"] == outcome), "{name}: {outcome}");
    };
    ended("nothing goes wrong", "succeeded");
    ended("`copy` fails for good", "rolled_back");
    ended("`go` is refused", "rolled_back");
    ended("`tell` fails for good", "failed");
    ended("a crash before append 5", "succeeded");
    let crashed = scenarios.iter().filter(|one| one["crashes"] == 1).count();
    assert!(crashed >= 16, "only {crashed} scenarios had a crash");
    let never: Vec<&str> =
        json["sweep"]["never"].as_array().expect("a list").iter().filter_map(serde_json::Value::as_str).collect();
    assert!(never.contains(&"`shout` never succeeded"), "{never:?}");
}

#[test]
fn work_by_hand_is_done_by_one_who_may_and_within_the_bounds_of_its_form() {
    let desk = Desk::new();
    desk.write("site.yaml", "apiVersion: piton/v1\nkind: Site\nname: here\npeople:\n  ann: { groups: [ops] }\n");
    desk.runbook("rack", "steps:\n  - { id: rack, manual: { instructions: Look, groups: [ops], assignee: run.starter, form: { errors: { type: integer, maximum: 0 }, share: { type: number, maximum: 0.5 } } } }\n");
    desk.write(
        "rack.test.yaml",
        "apiVersion: piton/v1\nkind: Test\ncases:\n  - { name: done, expect: { outcome: succeeded } }\n",
    );
    let said = desk.piton(&["--site", "site.yaml", "test", "rack.yaml"]).exits(0);
    assert!(said.out.ends_with("1 of 1 cases as expected\n"), "{}", said.out);
}
