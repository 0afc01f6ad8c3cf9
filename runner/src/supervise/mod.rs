// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only event loop: where the policy that flows down meets the events that flow up.

mod request;

pub use request::RunRequest;
