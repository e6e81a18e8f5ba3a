//! `beear` as its users meet it: a process with arguments, files, two streams and an exit code.

#![cfg(all(feature = "flex", feature = "ndarray"))]

mod answers;
mod asr;
mod bench_gpu;
mod code;
mod compare;
mod damage;
mod dashboard;
mod demo;
mod doctor;
mod drift;
mod fixture;
mod help;
mod helpfulness;
mod hostile;
mod hub;
mod hub_runs;
mod hub_secure;
mod hub_server;
mod init;
mod jobs;
mod judge;
mod judge_server;
mod lora;
mod mistakes;
mod mt_bench;
mod mt_bench_judge;
mod out;
mod own_data;
mod perplexity;
mod plan;
mod plug;
mod recipes;
mod report;
mod reproduce;
mod resume;
mod resume_rival;
mod rivals;
mod scan;
mod shell;
mod sweep;
mod tracking;
mod weights;
mod workers;
