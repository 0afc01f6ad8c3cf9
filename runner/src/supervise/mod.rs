// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only event loop: where the policy that flows down meets the events that flow up.

mod admission;
mod books;
mod desk;
mod gate;
mod kernel;
mod knocking;
mod live;
mod refusal;
mod request;
mod run;
mod secrets;
mod window;

pub use refusal::{RunError, with_causes};
pub use request::RunRequest;
pub use run::{host_for, load_request, run};
