//! Hubs that are not the real one: mirrors that know less, servers that mean harm, and settings that name none.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::{FakeHub, Fault, Habits, PAIR, WEIGHTS, cache, command, embedded, hub, refusal, run, workplace};
use crate::program::{Workplace, message, sorted_lines};

const ALONE: [&str; 4] = ["--expert", "acme/chat", "--beta", "0"];

/// What a header says never becomes a path.
#[test]
fn an_etag_is_no_path() {
    let (hub, place) = (hub(), workplace());
    let outside = place.write("outside.txt", "mine");
    let absolute = outside.to_str().unwrap();
    for etag in ["../../../../outside.txt", absolute, "..", "", &"0".repeat(64), "a/b", "x.part"] {
        let _ = fs::remove_dir_all(place.path("home"));
        hub.take_up(Habits { etag: Some(etag.to_owned()), ..Habits::default() });
        run(&hub, &place, "out", &ALONE);
        assert_eq!(fs::read_to_string(&outside).unwrap(), "mine", "{etag}");
        let blobs = fs::read_dir(cache(&place, "acme/chat").join("blobs")).unwrap();
        for blob in blobs.map(|blob| blob.unwrap().file_name().into_string().unwrap()) {
            let (name, extension) = blob.split_once('.').unwrap_or((&blob, "lock"));
            assert!(matches!(name.len(), 40 | 64) && extension == "lock", "{etag}: {blob}");
            assert_ne!(name, "0".repeat(64));
        }
    }
}

/// A mirror may list names alone, and may know no ranges: files are fetched all the same, also after a break.
#[test]
fn a_mirror_that_knows_less_serves() {
    let (hub, place) = (hub(), workplace());
    run(&hub, &place, "out", &PAIR);
    for (number, (lists_names_alone, ignores_ranges)) in
        [(true, false), (false, true), (true, true)].into_iter().enumerate()
    {
        hub.take_up(Habits { lists_names_alone, ignores_ranges, ..Habits::default() });
        fs::remove_dir_all(place.path("home")).unwrap();
        hub.fail(WEIGHTS, Fault::Cut(embedded("expert")[WEIGHTS].len() / 3));
        let output = format!("out{number}");
        run(&hub, &place, &output, &PAIR);
        assert_eq!(sorted_lines(&place.path(&output)), sorted_lines(&place.path("out")));
        hub.served();
        run(&hub, &place, &format!("again{number}"), &PAIR);
        assert!(hub.served().is_empty(), "a file of the cache is fetched again");
    }
}

/// An answer that is longer than the listing says is cut off, and what came is removed.
#[test]
fn an_answer_without_an_end_is_refused() {
    let (hub, place) = (hub(), workplace());
    hub.fail("config.json", Fault::Endless);
    let said = refusal(command(&hub, &place, "out", &ALONE), 1);
    assert!(said.contains("config.json") && said.contains("in place of"), "{said}");
    run(&hub, &place, "out", &ALONE);
}

/// An empty file is no file of a model, even if the hub says so; it does not stay in the cache.
#[test]
fn an_empty_file_is_not_kept() {
    let (hub, place) = (hub(), workplace());
    let mut files = embedded("expert");
    let config = files.insert("config.json".to_owned(), Vec::new()).unwrap();
    hub.commit("acme/chat", files);
    let said = refusal(command(&hub, &place, "out", &ALONE), 1);
    assert!(said.contains("config.json") && said.contains("is empty"), "{said}");
    let mut files = embedded("expert");
    files.insert("config.json".to_owned(), config);
    hub.commit("acme/chat", files);
    run(&hub, &place, "out", &ALONE);
}

#[test]
fn a_hub_that_answers_something_else_is_not_called_unreachable() {
    let (hub, place) = (hub(), workplace());
    let cases = [
        ([Some(500), None], 1, "answers with status 500; try again later"),
        ([Some(429), None], 1, "answers with status 429; try again later"),
        ([None, Some(404)], 1, "lists config.json and answers with status 404"),
        ([None, Some(403)], 1, "check that the token in use may read it"),
    ];
    for (statuses, code, words) in cases {
        hub.take_up(Habits { statuses, ..Habits::default() });
        let said = refusal(command(&hub, &place, "out", &ALONE), code);
        assert!(said.contains(words) && !said.contains("unreachable"), "{said}");
        assert!(!said.contains("broke off"), "{said}");
    }
}

/// A connection over which nothing comes any more is given up.
#[test]
fn a_transfer_that_stalls_goes_on() {
    let (hub, place) = (hub(), workplace());
    hub.fail(WEIGHTS, Fault::Stall(1000));
    let start = std::time::Instant::now();
    run(&hub, &place, "out", &ALONE);
    assert!(start.elapsed() < std::time::Duration::from_secs(55), "it waited for the hub");
}

/// What lies in the cache may be links, pipes and devices of others.
#[test]
fn nothing_in_the_cache_is_written_through_or_waited_for() {
    let (hub, place) = (hub(), workplace());
    run(&hub, &place, "out", &ALONE);
    let (folder, precious) = (cache(&place, "acme/chat"), place.write("precious", "mine"));
    let blobs = folder.join("blobs");
    let weights = fs::read_dir(&blobs).unwrap().map(|blob| blob.unwrap().path());
    let weights = weights.max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap();
    let pipe = |path: &Path| {
        let _ = fs::remove_file(path);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let again = |name: &str| {
        let _ = fs::remove_file(&weights);
        run(&hub, &place, name, &ALONE);
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    };

    let reference = folder.join("refs/main");
    fs::remove_file(&reference).unwrap();
    symlink(&precious, &reference).unwrap();
    again("link");
    assert!(fs::symlink_metadata(&reference).unwrap().is_file());
    pipe(&reference);
    again("pipe");
    pipe(&weights.with_extension("lock"));
    again("lock");

    let part = weights.with_extension("part");
    symlink(&precious, &part).unwrap();
    fs::remove_file(&weights).unwrap();
    refusal(command(&hub, &place, "part", &ALONE), 1);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    fs::remove_file(&part).unwrap();
    pipe(&part);
    refusal(command(&hub, &place, "part", &ALONE), 1);

    let token = place.path("token-pipe");
    pipe(&token);
    for file in [token.to_str().unwrap(), "/dev/zero"] {
        assert!(with(&hub, &place, "HF_TOKEN_PATH", file).output().unwrap().status.success());
    }
}

#[test]
fn a_setting_that_names_no_hub_is_said_to() {
    let (hub, place) = (hub(), workplace());
    let file = place.write("token", "two\nlines\n");
    let cases = [
        ("HF_ENDPOINT", "foo", "HF_ENDPOINT is foo"),
        ("HF_ENDPOINT", "ftp://example.org", "HF_ENDPOINT is ftp://example.org"),
        ("HF_ENDPOINT", "https://", "HF_ENDPOINT is https://"),
        ("HF_ENDPOINT", "http://a b", "HF_ENDPOINT is http://a b"),
        ("HF_ENDPOINT", "http://example.org:99999", "HF_ENDPOINT is http://example.org:99999"),
        ("HF_TOKEN", "hf_abc\nX-Evil: 1", "token in HF_TOKEN"),
        ("HUGGING_FACE_HUB_TOKEN", "hf abc", "token in HUGGING_FACE_HUB_TOKEN"),
        ("HF_TOKEN_PATH", file.to_str().unwrap(), file.to_str().unwrap()),
    ];
    for (name, value, says) in cases {
        let said = refusal(with(&hub, &place, name, value), 2);
        assert!(said.contains(says) && said.contains("unset it"), "{name}: {said}");
        assert!(!said.contains("hf_abc") && !said.contains("two"), "the token is shown: {said}");
    }
    let result = with(&hub, &place, "HF_ENDPOINT", &format!("{}/", hub.url())).output().unwrap();
    assert!(result.status.success(), "{}", message(&result));
}

fn with(hub: &FakeHub, place: &Workplace, name: &str, value: &str) -> Command {
    let mut plan = Command::new(env!("CARGO_BIN_EXE_codit"));
    hub.serve(plan.args(["plan", "--expert", "acme/chat"]), &place.path("home"));
    plan.env(name, value);
    plan
}
