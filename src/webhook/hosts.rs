use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;

/// How many are remembered before those that nothing is sent to are forgotten.
const REMEMBERED: usize = 10_000;

/// How much is sent to each host at once and in a second, so that many operations are no flood for one of them,
/// and a slow one holds up no other. Also how much for each owner.
#[derive(Debug)]
pub(super) struct Hosts {
    most: usize,
    /// How far apart calls are, and how many may come together after a rest.
    interval: Duration,
    known: Mutex<HashMap<String, Host>>,
}

#[derive(Debug)]
struct Host {
    running: usize,
    /// When a call would be due if they came evenly.
    due: Instant,
}

/// A call that is made. Dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Place<'a> {
    hosts: &'a Hosts,
    name: String,
}

impl Hosts {
    pub(super) fn new(most: usize, a_second: u32) -> Self {
        let interval = Duration::from_secs(1) / a_second.max(1);
        Self { most: most.max(1), interval, known: Mutex::default() }
    }

    /// One that counts only what is sent at once.
    pub(super) fn at_once(most: usize) -> Self {
        Self { most, interval: Duration::ZERO, known: Mutex::default() }
    }

    /// Room for a call to that host.
    ///
    /// # Errors
    /// After how long there may be some.
    pub(super) fn enter(&self, name: &str) -> Result<Place<'_>, Duration> {
        let now = Instant::now();
        let mut hosts = lock(&self.known);
        if hosts.len() >= REMEMBERED {
            hosts.retain(|_, host| host.running > 0 || host.due > now);
        }
        let host = hosts.entry(name.to_owned()).or_insert(Host { running: 0, due: now });
        // A second's worth may come together.
        let early = host.due.saturating_duration_since(now + Duration::from_secs(1));
        if host.running >= self.most || !early.is_zero() {
            return Err(early.max(Duration::from_secs(1)));
        }
        host.running += 1;
        host.due = host.due.max(now) + self.interval;
        Ok(Place { hosts: self, name: name.to_owned() })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(host) = lock(&self.hosts.known).get_mut(&self.name) {
            host.running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_host_has_bounds_of_its_own() {
        let hosts = Hosts::new(2, 1_000);
        let one = hosts.enter("a").unwrap();
        let _other = hosts.enter("a").unwrap();
        assert_eq!(hosts.enter("a").unwrap_err(), Duration::from_secs(1));
        assert!(hosts.enter("b").is_ok());
        drop(one);
        assert!(hosts.enter("a").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn many_calls_become_so_many_a_second() {
        let hosts = Hosts::new(usize::MAX, 10);
        let calls = || (0..1_000).filter(|_| hosts.enter("a").is_ok()).count();
        assert_eq!(calls(), 11, "a second's worth and one");
        advance(Duration::from_secs(5)).await;
        assert_eq!(calls(), 11, "no more after a long rest");
        let mut called = 0;
        for _ in 0..100 {
            advance(Duration::from_millis(100)).await;
            called += calls();
        }
        assert_eq!(called, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn what_counts_at_once_is_not_slowed_down() {
        let owners = Hosts::at_once(2);
        for _ in 0..1_000 {
            let _place = owners.enter("ann").unwrap();
        }
        let _places = (owners.enter("ann").unwrap(), owners.enter("ann").unwrap());
        assert!(owners.enter("ann").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_are_forgotten() {
        let hosts = Hosts::new(1, 1_000);
        let _kept = hosts.enter("kept").unwrap();
        for host in 0..REMEMBERED * 2 {
            advance(Duration::from_millis(1)).await;
            drop(hosts.enter(&host.to_string()).unwrap());
        }
        assert!(lock(&hosts.known).len() <= REMEMBERED);
        assert!(hosts.enter("kept").is_err());
    }
}
