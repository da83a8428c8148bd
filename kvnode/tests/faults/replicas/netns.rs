//! Network namespaces of this machine, one per node, on a bridge of their own: a network that can lose packets, and
//! lose them one way only. Gone when dropped. Needs root, `ip` and `iptables`.

use std::process::Command;

/// Namespaces with an address each.
#[derive(Debug)]
pub(super) struct Netns {
    bridge: String,
    names: Vec<String>,
    /// IP addresses, in the order of the namespaces.
    pub(super) hosts: Vec<String>,
}

impl Netns {
    /// As many namespaces as asked for.
    ///
    /// # Errors
    /// Why this machine has none: not root, or a program is missing.
    pub(super) fn make(count: usize) -> Result<Self, String> {
        run("iptables", &["--version"])?;
        // Unique per process; an interface's name has 15 bytes at most.
        let id = format!("kv{:x}", std::process::id());
        let subnet = format!("10.{}.{}", fastrand::u8(64..192), fastrand::u8(..));
        let mut made = Self {
            bridge: format!("{id}b"),
            names: Vec::new(),
            hosts: Vec::new(),
        };
        let bridge = made.bridge.clone();
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {subnet}.1/24 dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for n in 0..count {
            let (name, outer, inner) = (
                format!("{id}n{n}"),
                format!("{id}o{n}"),
                format!("{id}i{n}"),
            );
            let host = format!("{subnet}.{}", n + 2);
            ip(&format!("netns add {name}"))?;
            made.names.push(name.clone());
            ip(&format!(
                "link add {outer} type veth peer name {inner} netns {name}"
            ))?;
            ip(&format!("link set {outer} master {bridge} up"))?;
            ip(&format!("-n {name} addr add {host}/24 dev {inner}"))?;
            ip(&format!("-n {name} link set {inner} up"))?;
            ip(&format!("-n {name} link set lo up"))?;
            made.hosts.push(host);
        }
        Ok(made)
    }

    /// The command that a node in this namespace is started through.
    pub(super) fn wrapper(&self, n: usize) -> [&str; 4] {
        ["ip", "netns", "exec", &self.names[n]]
    }

    /// From now on drops what comes to namespace `to` from `from`; the other way stays as it is.
    pub(super) fn drop_one_way(&self, from: usize, to: usize) {
        let rule = format!("-A INPUT -s {} -j DROP", self.hosts[from]);
        self.iptables(to, &rule).expect("a rule");
    }

    /// From now on drops a share of what comes to namespace `to`, at random.
    pub(super) fn lose(&self, to: usize, share: f64) {
        let rule = format!("-A INPUT -m statistic --mode random --probability {share} -j DROP");
        self.iptables(to, &rule).expect("a rule");
    }

    /// Packets that were dropped at this namespace, until [`Netns::heal`].
    pub(super) fn dropped(&self, n: usize) -> usize {
        let listed = self.iptables(n, "-L INPUT -v -x -n").expect("a list");
        let of_rule = |line: &str| -> Option<usize> {
            let mut words = line.split_whitespace();
            let packets = words.next()?.parse().ok()?;
            (words.nth(1)? == "DROP").then_some(packets)
        };
        listed.lines().filter_map(of_rule).sum()
    }

    /// Lets everything pass.
    pub(super) fn heal(&self) {
        for n in 0..self.names.len() {
            self.iptables(n, "-F INPUT").expect("rules go");
        }
    }

    fn iptables(&self, n: usize, rule: &str) -> Result<String, String> {
        ip(&format!("netns exec {} iptables -w {rule}", self.names[n]))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&format!("netns del {name}"));
        }
        let _ = ip(&format!("link del {}", self.bridge));
    }
}

fn ip(arguments: &str) -> Result<String, String> {
    let words: Vec<&str> = arguments.split(' ').collect();
    run("ip", &words)
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
