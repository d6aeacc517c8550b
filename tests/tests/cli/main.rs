//! What the program `holdfast` does for whoever types it: refusals, reports, abuse, a
//! full disk, a long log.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod abuse;
mod by_hand;
mod commands;
mod damage;
mod quick_start;
mod refusals;
mod reports;
mod settings;
mod space;
mod three_nodes;
