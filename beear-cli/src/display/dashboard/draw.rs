//! Picture of the dashboard: a function from the state of a run to a frame of any size.

use std::time::Duration;

use beear_core::{BoundCheck, InjectionPoint, Positions, ValidationSummary};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{
    Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Row, Sparkline, Table, Wrap,
};

use super::curve::Curve;
use super::state::{Found, Phase, Round, State};
use crate::memory::bytes;

/// Minimum numbers of columns and rows at which charts and tables are readable.
const ROOMY: (u16, u16) = (70, 20);

/// Draws `state`. `now` counts from the start of the dashboard.
pub(crate) fn draw(frame: &mut Frame, state: &State, now: Duration) {
    let area = frame.area();
    if area.width >= ROOMY.0 && area.height >= ROOMY.1 {
        roomy(frame, state, now);
    } else {
        narrow(frame, state, now);
    }
}

fn roomy(frame: &mut Frame, state: &State, now: Duration) {
    let rows = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(4),
        Constraint::Length(8),
        Constraint::Fill(2),
        Constraint::Length(1),
    ];
    let [title, gauge, phase, charts, facts, lines, keys] =
        Layout::vertical(rows).areas(frame.area());
    frame.render_widget(title_line(state), title);
    frame.render_widget(progress(state, now), gauge);
    frame.render_widget(Line::from(phase_text(state)), phase);
    let columns = Layout::horizontal([Constraint::Fill(2), Constraint::Fill(3)]);
    let [left, right] = columns.areas(charts);
    inner_chart(frame, state, left);
    outer_chart(frame, state, right);
    let [left, right] = columns.areas(facts);
    frame.render_widget(found_panel(state), left);
    validation_table(frame, state, right);
    let newest = lines.height.saturating_sub(2) as usize;
    let shown = state.lines.iter().skip(state.lines.len().saturating_sub(newest));
    let shown: Vec<Line> = shown.map(|line| Line::from(line.as_str())).collect();
    frame.render_widget(Paragraph::new(shown).block(Block::bordered().title(" events ")), lines);
    frame.render_widget(key_line(state), keys);
}

/// Draws one fact per row, the most important first, as many as fit.
fn narrow(frame: &mut Frame, state: &State, now: Duration) {
    let area = frame.area();
    let row = |index: u16| {
        let row = Rect { y: area.y + index, height: 1, ..area };
        (index < area.height.saturating_sub(1)).then_some(row)
    };
    let mut draw_line = |index: u16, line: Line| {
        if let Some(row) = row(index) {
            frame.render_widget(line, row);
        }
    };
    draw_line(0, title_line(state));
    draw_line(2, phase_text(state).into());
    let newest = state.rounds.last();
    draw_line(5, validation_text(state, newest).into());
    draw_line(6, bounds_text(state).into());
    draw_line(7, state.found.as_ref().map_or("no δ yet".to_owned(), found_text).into());
    draw_line(8, memory_text(state).into());
    draw_line(9, saved_text(state).into());
    draw_line(10, state.lines.back().map_or("", String::as_str).into());
    if let Some(row) = row(1) {
        frame.render_widget(progress(state, now), row);
    }
    let curves = [(3, "inner", &state.inner), (4, "safe ", &state.outer[0])];
    for (index, name, curve) in curves {
        if let Some(row) = row(index) {
            spark(frame, (name, curve), row);
        }
    }
    let last =
        Rect { y: area.y + area.height.saturating_sub(1), height: area.height.min(1), ..area };
    frame.render_widget(key_line(state), last);
}

fn title_line(state: &State) -> Line<'_> {
    Line::styled(
        format!("beear · {}", state.setup.title),
        Style::new().add_modifier(Modifier::BOLD),
    )
}

fn progress(state: &State, now: Duration) -> Gauge<'static> {
    let (taken, all) = state.steps();
    let share = taken as f64 / all.max(1) as f64;
    let label = match state.remaining(now) {
        Some(left) => format!("{:.0} %, {} left", 100.0 * share, time(left)),
        None => format!("{:.0} %", 100.0 * share),
    };
    let style = Style::new().fg(Color::Green).bg(Color::Black);
    Gauge::default().gauge_style(style).ratio(share.clamp(0.0, 1.0)).label(label)
}

/// Formats a duration in its two largest units, which is exact enough for people.
fn time(duration: Duration) -> String {
    let seconds = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    seconds.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn phase_text(state: &State) -> String {
    let setup = &state.setup;
    let round = format!("round {} of {}", state.rounds.len() + 1, setup.n_rounds);
    if state.stopping {
        let how = if setup.has_checkpoints { ", with a checkpoint" } else { "" };
        return format!("stopping after this step{how}");
    }
    match state.phase() {
        Phase::Begins => "looking at the model before the first step".to_owned(),
        Phase::Entraps { perturbation, step } => format!(
            "{round}: δ {perturbation} of {}, step {step} of {}",
            setup.n_perturbations, setup.n_inner
        ),
        Phase::Removes { step } => format!("{round}: trains, step {step} of {}", setup.n_outer),
        Phase::Looks if state.rounds.len() >= setup.n_rounds => "done".to_owned(),
        Phase::Looks => format!("{round}: validates"),
    }
}

fn inner_chart(frame: &mut Frame, state: &State, area: Rect) {
    let title = match state.inner.last() {
        Some(loss) => format!(" inner loss {loss:.3} "),
        None => " inner loss ".to_owned(),
    };
    chart(frame, title, &[(&state.inner, Marker::Braille, Color::Cyan)], area);
}

fn outer_chart(frame: &mut Frame, state: &State, area: Rect) {
    let title = match &state.terms {
        Some(terms) => format!(
            " outer loss: safe {:.3}, kept {:.3}, KL {:.3} ",
            terms.safety, terms.performance, terms.divergence
        ),
        None => " outer loss ".to_owned(),
    };
    let [safe, kept] = &state.outer;
    let lines = [(safe, Marker::Braille, Color::Cyan), (kept, Marker::Dot, Color::Yellow)];
    chart(frame, title, &lines, area);
}

fn chart(frame: &mut Frame, title: String, curves: &[(&Curve, Marker, Color)], area: Rect) {
    let block = Block::bordered().title(title);
    let points: Vec<Vec<(f64, f64)>> = curves.iter().map(|(curve, ..)| curve.points()).collect();
    let values = || points.iter().flatten();
    let most = values().map(|(_, y)| *y).fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        frame.render_widget(Paragraph::new("no step yet").block(block), area);
        return;
    }
    let least = values().map(|(_, y)| *y).fold(0.0, f64::min);
    let end = values().map(|(x, _)| *x).fold(1.0, f64::max);
    let top = if most > least { most } else { least + 1.0 };
    let sets = curves.iter().zip(&points).map(|((_, marker, color), points)| {
        let style = Style::new().fg(*color);
        Dataset::default().marker(*marker).graph_type(GraphType::Line).style(style).data(points)
    });
    let labels = [format!("{least:.2}"), format!("{top:.2}")];
    let chart = Chart::new(sets.collect())
        .block(block)
        .legend_position(None)
        .x_axis(Axis::default().bounds([0.0, end]))
        .y_axis(Axis::default().bounds([least, top]).labels(labels));
    frame.render_widget(chart, area);
}

fn spark(frame: &mut Frame, (name, curve): (&str, &Curve), area: Rect) {
    let value = curve.last().map_or("     -".to_owned(), |loss| format!("{loss:6.3}"));
    let label = format!("{name} loss {value} ");
    let [left, right] =
        Layout::horizontal([Constraint::Length(label.len() as u16), Constraint::Fill(1)])
            .areas(area);
    frame.render_widget(Line::from(label), left);
    let means = curve.resampled(right.width.into());
    let (least, most) = means.iter().fold((0.0_f64, 0.0_f64), |(a, b), v| (a.min(*v), b.max(*v)));
    let height = |value: &f64| (1000.0 * (value - least) / (most - least).max(1e-9)) as u64;
    let heights: Vec<u64> = means.iter().map(height).collect();
    frame.render_widget(Sparkline::default().data(&heights).max(1000), right);
}

fn validation_table(frame: &mut Frame, state: &State, area: Rect) {
    let block = Block::bordered().title(" held-out rows, without a trigger ");
    if !state.setup.watched {
        frame.render_widget(Paragraph::new("no row is held out").block(block), area);
        return;
    }
    let bounds = state.setup.bounds;
    let mut rows = vec![
        Row::new([
            "bounds".to_owned(),
            format!("+{:.3}", bounds.loss_rise),
            format!("-{:.3}", bounds.agreement_drop),
            format!("+{:.3}", bounds.benign_refusal_rise),
            format!("-{:.3}", bounds.refusal_drop),
        ]),
        values_row("start".to_owned(), state.initial.map_or([None; 4], suspect_values), ""),
    ];
    // The borders, the header and these two rows take five.
    let room = area.height.saturating_sub(5) as usize;
    let first = state.rounds.len().saturating_sub(room);
    for (index, round) in state.rounds.iter().enumerate().skip(first) {
        let name = format!("round {}", index + 1);
        rows.push(values_row(name, round_values(round), note(round)));
    }
    let widths = [8, 6, 6, 6, 7, 7].map(Constraint::Length);
    let header = Row::new(["", "loss", "alike", "benign", "refusal"])
        .style(Style::new().add_modifier(Modifier::BOLD));
    let table = Table::new(rows, widths).header(header).column_spacing(1).block(block);
    frame.render_widget(table, area);
}

/// Returns a row of loss, agreement, over-refusal and refusal, with `-` for unknown values.
fn values_row(name: String, values: [Option<f64>; 4], note: &str) -> Row<'static> {
    let shown = values.map(|value| value.map_or("-".to_owned(), |value| format!("{value:.3}")));
    let cells = std::iter::once(name).chain(shown).chain(std::iter::once(note.to_owned()));
    Row::new(cells.collect::<Vec<String>>())
}

fn suspect_values(suspect: ValidationSummary) -> [Option<f64>; 4] {
    [Some(suspect.loss), None, Some(suspect.benign_refusal), Some(suspect.refusal)]
}

fn round_values(round: &Round) -> [Option<f64>; 4] {
    let validation = round.validation.unwrap_or_default();
    let checks =
        [validation.loss, validation.agreement, validation.benign_refusal, validation.refusal];
    checks.map(|check: Option<BoundCheck>| check.map(|check| check.after))
}

fn note(round: &Round) -> &'static str {
    match round {
        Round { within_bounds: false, .. } => "outside",
        Round { kept: true, .. } => "best",
        _ => "",
    }
}

fn found_panel(state: &State) -> Paragraph<'static> {
    let mut lines: Vec<Line> = Vec::new();
    match &state.found {
        Some(found) => {
            lines.push(found_text(found).into());
            lines.push(injection_points_text(&found.injection_points).into());
        }
        None => lines.push("no δ yet".into()),
    }
    lines.push(memory_text(state).into());
    if let Some(planned) = state.setup.planned_memory {
        lines.push(format!("planned {}", bytes::show(planned)).into());
    }
    lines.push(saved_text(state).into());
    let block = Block::bordered().title(" δ, memory, checkpoint ");
    Paragraph::new(lines).wrap(Wrap { trim: true }).block(block)
}

fn found_text(Found { losses: (first, last), norm, .. }: &Found) -> String {
    format!("δ norm {norm:.2}, loss {first:.2}→{last:.2}")
}

/// Formats the injection points in their order, which keeps those of one layer together.
fn injection_points_text(injection_points: &[InjectionPoint]) -> String {
    let positions = |positions: Positions| match positions {
        Positions::Last(n) => format!("last {n}"),
        Positions::First(n) => format!("first {n}"),
        Positions::UserLast(n) => format!("user's last {n}"),
        Positions::All => "all".to_owned(),
    };
    let injection_points = injection_points
        .iter()
        .map(|point| format!("layer {} {}", point.layer, positions(point.positions)));
    injection_points.collect::<Vec<_>>().join(", ")
}

fn validation_text(state: &State, round: Option<&Round>) -> String {
    let values = match round {
        Some(round) => round_values(round),
        None => state.initial.map_or([None; 4], suspect_values),
    };
    match (values, state.setup.watched) {
        ([Some(loss), _, Some(benign_refusal), _], true) => format!(
            "loss {loss:.3}, over-refusal {benign_refusal:.3} {}",
            round.map_or("", |round| note(round))
        ),
        _ => "nothing validated".to_owned(),
    }
}

fn bounds_text(state: &State) -> String {
    let bounds = state.setup.bounds;
    match state.initial.filter(|_| state.setup.watched) {
        Some(_) => format!(
            "bound +{:.3},             +{:.3}",
            bounds.loss_rise, bounds.benign_refusal_rise
        ),
        None => String::new(),
    }
}

fn memory_text(state: &State) -> String {
    match state.memory {
        Some([now, most]) => format!("memory {}, most {}", bytes::show(now), bytes::show(most)),
        None => "memory unknown here".to_owned(),
    }
}

fn saved_text(state: &State) -> String {
    match state.saved {
        _ if !state.setup.has_checkpoints => "no checkpoints".to_owned(),
        Some(step) => format!("checkpoint after step {step}"),
        None => "no checkpoint yet".to_owned(),
    }
}

fn key_line(state: &State) -> Line<'static> {
    let text = match (state.stopping, state.setup.has_checkpoints) {
        (true, _) => "q again: leave at once",
        (false, true) => "q: stop, resumable   c: checkpoint",
        (false, false) => "q: stop",
    };
    Line::styled(text, Style::new().add_modifier(Modifier::REVERSED))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::tests::{events_of_round, in_round_two, setup};
    use super::*;

    fn drawn(state: &State, (width, height): (u16, u16)) -> TestBackend {
        let mut terminal =
            Terminal::new(TestBackend::new(width, height)).expect("no terminal fails");
        let now = Duration::from_secs(15);
        terminal.draw(|frame| draw(frame, state, now)).expect("it is drawn");
        terminal.backend().clone()
    }

    #[test]
    fn a_run_in_its_second_round() {
        let state = in_round_two();
        insta::assert_snapshot!("roomy", drawn(&state, (80, 24)));
        insta::assert_snapshot!("narrow", drawn(&state, (40, 12)));
    }

    #[test]
    fn every_state_fits_every_size() {
        let mut unwatched = in_round_two();
        unwatched.setup.watched = false;
        unwatched.setup.has_checkpoints = false;
        unwatched.rounds.clear();
        let mut done = in_round_two();
        done.stopping = true;
        done.inner.push(f64::NAN);
        for event in (2..40).flat_map(events_of_round) {
            done.event(&event, Duration::ZERO);
        }
        for state in [State::new(setup()), in_round_two(), unwatched, done] {
            for width in [1, 2, 7, 39, 69, 70, 300] {
                for height in [1, 2, 3, 11, 19, 20, 90] {
                    drawn(&state, (width, height));
                }
            }
        }
    }

    #[test]
    fn a_stop_that_was_asked_for_is_seen() {
        let mut state = in_round_two();
        state.stopping = true;
        let picture = drawn(&state, (80, 24)).to_string();
        assert!(picture.contains("stopping after this step, with a checkpoint"), "{picture}");
        assert!(picture.contains("q again: leave at once"), "{picture}");
    }
}
