// SPDX-License-Identifier: MIT OR Apache-2.0
//! The integration tests, one binary. Each module is one capability seen from outside: a real
//! `lp-run`, a real program, a real kernel. What needs root says so and skips loudly without it.

// The fixture: a temporary folder, a policy, a network of its own.
mod support;

// What an operator types and reads.
mod cli;

// What documents say of these tests.
mod documents;

// The fixture and the probe themselves: a test that cannot fail proves nothing.
mod fixture;

// The network layer by itself: programs on a cgroup, acts inside and outside of it.
mod network;

// Destinations by name: the resolver and the relay, with real programs.
mod names;

// One object in the kernel for all runs: nothing of one is seen in another.
mod shared;

// The core of the demo: also run on every kernel of the matrix.
mod smoke;

// What a sandbox must withstand: bare an act works, denied it gives the promised errno, granted it
// works again.
mod attacks;

// The policies that are shipped, with the programs that they are for.
mod policies;

// The language kits, with real compilers and runtimes.
mod kits;

// A store on the host's disk.
mod disk;

// Memory, processes and processor time of the whole run.
mod limits;

// A layer left out, a process killed: what must hold when something fails in the middle.
mod faults;

// An ordinary user in place of root.
mod rootless;

// A terminal with a shell and its jobs, pipelines, sockets and descriptors.
mod terminal;
