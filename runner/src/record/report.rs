// SPDX-License-Identifier: MIT OR Apache-2.0
//! The run report, schema `lp-run.report/1`.
