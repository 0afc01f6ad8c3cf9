// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which address stands for which name. An address that was given out stays with its name until
//! the run ends.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use crate::plan::names::Names;

/// The addresses of a name.
pub type Addresses = (Ipv4Addr, Ipv6Addr);

/// What was given out of the wildcards' prefixes.
#[derive(Debug)]
pub struct Book {
    given: Mutex<Given>,
}

#[derive(Debug, Default)]
struct Given {
    places: HashMap<String, u32>,
    /// By host, the names in the order of their addresses.
    names: Vec<Vec<String>>,
}

impl Book {
    /// An empty book for `names`.
    pub fn of(names: &Names) -> Self {
        let given = Given {
            places: HashMap::new(),
            names: vec![Vec::new(); names.hosts.len()],
        };
        Self {
            given: Mutex::new(given),
        }
    }

    /// The addresses of `name`, which `host` covers; `None`: its prefix is used up.
    pub fn addresses(&self, names: &Names, host: usize, name: &str) -> Option<Addresses> {
        let pattern = &names.hosts[host];
        if !pattern.pattern.wildcard {
            return Some((pattern.v4.addr(), pattern.v6.addr()));
        }
        let room = 1 << (32 - pattern.v4.prefix_len());
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match given.places.get(name) {
            Some(place) => *place,
            None => {
                let place = given.names[host].len() as u32;
                if place >= room {
                    return None;
                }
                given.names[host].push(name.to_owned());
                given.places.insert(name.to_owned(), place);
                place
            }
        };
        let v4 = Ipv4Addr::from_bits(pattern.v4.network().to_bits() + place);
        let v6 = Ipv6Addr::from_bits(pattern.v6.network().to_bits() + u128::from(place));
        Some((v4, v6))
    }

    /// The name that an address of `host` was given out for.
    pub fn name(&self, names: &Names, host: usize, address: IpAddr) -> Option<String> {
        let pattern = &names.hosts[host];
        if !pattern.pattern.wildcard {
            return Some(pattern.pattern.name.clone());
        }
        let place = match address {
            IpAddr::V4(address) => u128::from(address.to_bits() - pattern.v4.network().to_bits()),
            IpAddr::V6(address) => address.to_bits() - pattern.v6.network().to_bits(),
        };
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(place).ok()?;
        given.names[host].get(place).cloned()
    }
}
