//! The end of the process between any two steps of accepting work and finishing it.

use super::client;
use super::{Service, eventually, free_address};

/// The steps are calls of the store; the process ends right before or after one.
#[test]
fn work_goes_on_wherever_the_process_ended() {
    let mut fired = 0;
    for call in ["Accept", "Claim", "Read", "Swap"] {
        for when in ["Before", "After"] {
            for nth in 1..=3 {
                for kind in ["repeat", "once"] {
                    fired += usize::from(is_survived(&format!("{call} {when} {nth}"), kind));
                }
            }
        }
    }
    assert!(fired >= 36, "the process ended at {fired} of 48 points");
}

/// Has work done by a service that ends at a point, and started again by one that does not. Says
/// whether the first came to that point.
fn is_survived(point: &str, kind: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut service = Service::start(folder.path(), &address, point);
    let target = format!("/{kind}/20");
    let ask = || client::post(&address, &target, "the-key", "respond-async");
    let told = ask().ok().filter(|answer| answer.status == 202).map(|answer| answer.operation());
    // Whoever polls is a reader too.
    let monitor = told.as_ref().map(|id| format!("/operations/{id}"));
    // A slow machine may take long to come there.
    for _ in 0..250 {
        let target = monitor.as_deref().unwrap_or("/");
        let is_done = client::get(&address, target)
            .is_ok_and(|answer| answer.content.contains("\"finished\""));
        if is_done || !service.is_running() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let fired = !service.is_running();
    drop(service);

    let service = Service::start(folder.path(), &address, "");
    let id = match ask().unwrap() {
        answer if answer.status == 202 => answer.operation(),
        answer => match told.clone() {
            Some(told) => told,
            None => answer.operation(),
        },
    };
    assert!(told.is_none_or(|told| told == id), "{point}: the key stands for another operation");
    let mut ended = serde_json::Value::Null;
    eventually(&format!("{kind} is stuck after {point}"), || {
        let answer = client::get(&address, &format!("/operations/{id}")).unwrap();
        assert_eq!(answer.status, 200, "{kind} is lost after {point}");
        ended = answer.json();
        ended.get("finished").is_some()
    });
    let began = service.effects().iter().filter(|effect| effect.word == "began").count();
    match (kind, ended["status"].as_str().unwrap()) {
        (_, "succeeded") | ("once", "failed") => {}
        (_, status) => panic!("{kind} is {status} after {point}: {ended}"),
    }
    assert!(kind == "repeat" || began <= 1, "{kind} began {began} times after {point}");
    fired
}
