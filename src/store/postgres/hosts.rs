//! The hosts that a connection string names, each with its addresses. The driver would go through them by
//! itself, but bounds only how long it takes to reach one, not how long that takes to answer: a host that
//! stands still would be in the way of all others.

use std::net::IpAddr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts};

/// One configuration for each host, in the order in which they are to be tried.
pub(super) fn hosts(config: &Config) -> Vec<Config> {
    let (names, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let ports = config.get_ports();
    let count = names.len().max(addresses.len());
    let fits = |length: usize, few: usize| length <= few || length == count;
    let fit = count > 0 && fits(names.len(), 0) && fits(addresses.len(), 0) && fits(ports.len(), 1);
    if !fit || with_hosts(config, names, addresses, ports) != *config {
        // The driver says what is wrong with it, or it has a setting that is not known here.
        return vec![config.clone()];
    }
    let host = |place: usize| {
        let name = names.get(place..=place).unwrap_or_default();
        let address = addresses.get(place..=place).unwrap_or_default();
        with_hosts(config, name, address, ports.get(place..=place).unwrap_or(ports))
    };
    in_order(config, (0..count).map(host).collect())
}

/// One configuration for each address of a host. Its name stays, by which TLS knows it.
pub(super) async fn addresses(host: &Config) -> Vec<Config> {
    let ([Host::Tcp(name)], []) = (host.get_hosts(), host.get_hostaddrs()) else {
        return vec![host.clone()];
    };
    let port = host.get_ports().first().copied().unwrap_or_default();
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let mut addresses = Vec::new();
    for address in found.into_iter().flatten() {
        let mut one = host.clone();
        one.hostaddr(address.ip());
        addresses.push(one);
    }
    if addresses.is_empty() {
        // The driver says why there is none.
        return vec![host.clone()];
    }
    in_order(host, addresses)
}

/// As they are, or by chance if the connection string says so.
fn in_order(config: &Config, mut configs: Vec<Config>) -> Vec<Config> {
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        configs.sort_by_cached_key(|_| getrandom::u32().unwrap_or_default());
    }
    configs
}

/// All else that a configuration says, with these hosts. There is no way to take hosts out of one.
fn with_hosts(config: &Config, names: &[Host], addresses: &[IpAddr], ports: &[u16]) -> Config {
    let mut one = Config::new();
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(name) = config.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    if let Some(name) = config.get_application_name() {
        one.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    for name in names {
        match name {
            Host::Tcp(name) => one.host(name),
            #[cfg(unix)]
            Host::Unix(folder) => one.host_path(folder),
        };
    }
    for address in addresses {
        one.hostaddr(*address);
    }
    for port in ports {
        one.port(*port);
    }
    one.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a connection string can say, each other than by default, but for the hosts.
    const ALL: &str = "user=ann password=secret dbname=app options='-c a=b' application_name=x \
        sslmode=require sslnegotiation=direct connect_timeout=7 tcp_user_timeout=8 keepalives=0 \
        keepalives_idle=9 keepalives_interval=10 keepalives_retries=11 \
        target_session_attrs=read-only channel_binding=require";

    fn config(hosts: &str) -> Config {
        format!("{ALL} {hosts}").parse().unwrap()
    }

    #[track_caller]
    fn check(all: &str, each: &[&str]) {
        let each: Vec<Config> = each.iter().map(|one| config(one)).collect();
        assert_eq!(hosts(&config(all)), each, "{all}");
    }

    #[test]
    fn each_host_has_its_own_port_and_address_and_all_else_in_common() {
        check("host=a", &["host=a"]);
        check("host=a,b", &["host=a", "host=b"]);
        check("host=a,/run/b port=1", &["host=a port=1", "host=/run/b port=1"]);
        check("host=a,b port=1,2", &["host=a port=1", "host=b port=2"]);
        check("hostaddr=::1,127.0.0.2", &["hostaddr=::1", "hostaddr=127.0.0.2"]);
        check(
            "host=a,b hostaddr=::1,127.0.0.2 port=1,2",
            &["host=a hostaddr=::1 port=1", "host=b hostaddr=127.0.0.2 port=2"],
        );
        // What the driver refuses.
        for wrong in ["", "host=a,b hostaddr=::1", "host=a,b port=1,2,3", "host=a port=1,2"] {
            check(wrong, &[wrong]);
        }
    }

    #[test]
    fn hosts_come_by_chance_if_the_connection_string_says_so() {
        let names: Vec<_> = (0..50).map(|number| number.to_string()).collect();
        let all = config(&format!("load_balance_hosts=random host={}", names.join(",")));
        let name = |config: Config| config.get_hosts().to_vec();
        let tried: Vec<_> = hosts(&all).into_iter().flat_map(name).collect();
        assert_ne!(tried, all.get_hosts());
        assert!(all.get_hosts().iter().all(|host| tried.contains(host)));
    }

    #[tokio::test]
    async fn a_name_has_its_addresses_and_what_has_one_is_not_looked_up() {
        let of = async |host: &str| addresses(&config(host)).await;
        assert_eq!(
            of("host=127.0.0.1 port=7").await,
            [config("host=127.0.0.1 port=7 hostaddr=127.0.0.1")]
        );
        for host in ["host=/run/b port=7", "host=no.such.invalid hostaddr=::1", "hostaddr=::1"] {
            assert_eq!(of(host).await, [config(host)]);
        }
        assert_eq!(of("host=no.such.invalid").await, [config("host=no.such.invalid")]);
        assert!(of("host=localhost").await.iter().all(|one| one.get_hostaddrs().len() == 1));
    }
}
