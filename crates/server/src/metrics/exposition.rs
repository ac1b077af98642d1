//! The text format of Prometheus, version 0.0.4.

use super::{BusyRoom, GatewayMetrics, Histogram, HttpCounts, Metrics, Upgraded};
use prometheus::{
    Encoder, TextEncoder,
    proto::{self, Bucket, LabelPair, Metric, MetricFamily, MetricType},
};

/// Metrics as they are written.
pub(crate) struct Exposition(Vec<MetricFamily>);

impl Exposition {
    /// Of all workers, of HTTP, and of the process where the system tells.
    pub(crate) fn new(metrics: &Metrics, http: &HttpCounts, log_lines_lost: Option<u64>) -> Self {
        let mut exposition = Self(process_families());
        exposition.rooms(metrics);
        exposition.clients(metrics);
        exposition.work(metrics);
        if let Some(gateways) = &metrics.gateways {
            exposition.gateways(gateways);
        }
        exposition.busiest(&metrics.busiest);
        let responses = http.list();
        let responses = responses.iter().map(|(status, n)| (status.to_string(), *n));
        exposition.counters(
            "stateroom_http_responses_total",
            "Responses to HTTP requests and rejected connections, by status; 101 is a WebSocket.",
            "status",
            responses,
        );
        if let Some(lost) = log_lines_lost {
            exposition.counter(
                "stateroom_log_lines_lost_total",
                "Lines of the log that were lost, since nothing took them in time.",
                lost,
            );
        }
        exposition
    }

    /// The type of the format.
    pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Fails for a family without metrics, which none is.
        let _ = TextEncoder::new().encode(&self.0, &mut text);
        text
    }

    fn rooms(&mut self, metrics: &Metrics) {
        let states = ["open", "busy", "restarting", "hibernating", "closed"];
        let rooms = states.map(|state| (state, metrics.rooms.get(state).copied().unwrap_or(0)));
        self.family(
            "stateroom_rooms",
            "Rooms in memory, by state.",
            MetricType::GAUGE,
            rooms.map(|(state, rooms)| labelled(gauge(rooms as f64), "state", state)),
        );
        for (name, help, value) in [
            (
                "stateroom_rooms_restoring",
                "Stored rooms that are being loaded and replayed, or wait for that.",
                metrics.restoring,
            ),
            (
                "stateroom_room_memory_bytes",
                "Linear memory of all guests.",
                metrics.memory_bytes,
            ),
            (
                "stateroom_room_instance_bytes",
                "Heap for what modules declare, of all guests.",
                metrics.instance_bytes,
            ),
            (
                "stateroom_room_hibernated_bytes",
                "Heap for the states of hibernating rooms.",
                metrics.hibernated_bytes,
            ),
            (
                "stateroom_events_waiting",
                "Events in the inboxes of all rooms.",
                metrics.waiting_events,
            ),
        ] {
            self.gauge(name, help, value);
        }
        let totals = &metrics.totals;
        for (name, help, value) in [
            (
                "stateroom_rooms_opened_total",
                "Rooms that were opened or loaded.",
                totals.rooms,
            ),
            (
                "stateroom_events_total",
                "Events from clients that are over: connects, messages and disconnects.",
                totals.events,
            ),
            (
                "stateroom_outputs_total",
                "Messages that rooms have sent; a broadcast counts once.",
                totals.outputs,
            ),
            (
                "stateroom_fuel_total",
                "Fuel that guests have used: about one unit per instruction.",
                totals.fuel,
            ),
        ] {
            self.counter(name, help, value);
        }
        let faults = metrics.faults.iter();
        self.counters(
            "stateroom_faults_total",
            "Failures of guests, by kind.",
            "kind",
            faults.map(|(kind, count)| (kind.name().into(), *count)),
        );
        let upgrades = Upgraded::ALL.map(|result| {
            let count = metrics.upgrades.get(&result).copied().unwrap_or(0);
            (result.name().into(), count)
        });
        self.counters(
            "stateroom_room_upgrades_total",
            "Rooms for which the module changed: their state passed to the new one, they kept the one that they \
             had, or they restarted with the new one.",
            "result",
            upgrades.into_iter(),
        );
    }

    fn clients(&mut self, metrics: &Metrics) {
        let clients = &metrics.clients;
        for (name, help, value) in [
            (
                "stateroom_connections",
                "Open WebSockets.",
                metrics.connections,
            ),
            (
                "stateroom_sessions",
                "Clients of stateroom.resume.1, with a connection or away for a moment.",
                metrics.sessions,
            ),
            (
                "stateroom_send_queue_bytes",
                "Bytes that wait to be sent to all clients.",
                metrics.queued_bytes,
            ),
        ] {
            self.gauge(name, help, value);
        }
        for (name, help, value) in [
            (
                "stateroom_clients_joined_total",
                "Clients that have joined a room.",
                clients.joined(),
            ),
            (
                "stateroom_clients_left_total",
                "Clients that have closed their connection or lost it.",
                clients.left(),
            ),
            (
                "stateroom_messages_received_total",
                "Messages that were received from clients.",
                metrics.messages_received,
            ),
            (
                "stateroom_received_bytes_total",
                "Bytes of those.",
                metrics.bytes_received,
            ),
            (
                "stateroom_messages_sent_total",
                "Messages that were queued for clients; a broadcast counts once for each.",
                metrics.messages_sent,
            ),
            (
                "stateroom_sent_bytes_total",
                "Bytes of those.",
                metrics.bytes_sent,
            ),
        ] {
            self.counter(name, help, value);
        }
        let closed = clients.closed().iter();
        self.counters(
            "stateroom_clients_closed_total",
            "Clients that the server has disconnected, by close code.",
            "code",
            closed.map(|(code, count)| (code.to_string(), *count)),
        );
    }

    fn work(&mut self, metrics: &Metrics) {
        self.histogram(
            "stateroom_event_seconds",
            "Time that a worker spends on an event of a room: the guest, and what sends its messages.",
            &metrics.events,
        );
        self.histogram(
            "stateroom_slice_seconds",
            "Time that a room has a worker for itself.",
            &metrics.slices,
        );
        self.histogram(
            "stateroom_journal_write_seconds",
            "Time until what happened in a turn of a worker's rooms is durable.",
            &metrics.journal,
        );
        self.gauge(
            "stateroom_journal_unwritten_bytes",
            "Bytes of events that are not durable yet.",
            metrics.journal_in_flight_bytes,
        );
    }

    fn gateways(&mut self, gateways: &GatewayMetrics) {
        self.gauge(
            "stateroom_gateway_clients",
            "Clients of this node whose messages are passed on, to this node or to another.",
            gateways.clients,
        );
        self.gauge(
            "stateroom_gateway_clients_waiting",
            "Those of them that wait for the node of their room.",
            gateways.waiting,
        );
        self.counter(
            "stateroom_gateway_sessions_resumed_total",
            "How often a client has gone on over another connection to the node of its room, or at the next.",
            gateways.resumed,
        );
    }

    fn busiest(&mut self, rooms: &[BusyRoom]) {
        if rooms.is_empty() {
            return;
        }
        self.family(
            "stateroom_busiest_room_fuel_total",
            "Fuel that a room has used, of those that have used the most.",
            MetricType::COUNTER,
            rooms
                .iter()
                .map(|room| labelled(counter(room.stats.fuel_used), "room", &room.id)),
        );
        for (name, help, value) in [
            (
                "stateroom_busiest_room_clients",
                "Clients of such a room.",
                (|room| room.stats.clients) as fn(&BusyRoom) -> usize,
            ),
            (
                "stateroom_busiest_room_memory_bytes",
                "Linear memory of such a room's guest.",
                |room| room.stats.memory_bytes,
            ),
        ] {
            let rooms = rooms.iter();
            let metrics = rooms.map(|room| labelled(gauge(value(room) as f64), "room", &room.id));
            self.family(name, help, MetricType::GAUGE, metrics);
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.family(name, help, MetricType::GAUGE, [gauge(value as f64)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, MetricType::COUNTER, [counter(value)]);
    }

    /// Counters that differ in a label. There may be none yet.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (String, u64)>,
    ) {
        let values = values.map(|(value, count)| labelled(counter(count), label, &value));
        self.family(name, help, MetricType::COUNTER, values);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        let buckets = histogram.cumulative().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut value = proto::Histogram::default();
        value.set_bucket(buckets.collect());
        value.set_sample_count(histogram.count());
        value.set_sample_sum(histogram.sum().as_secs_f64());
        let mut metric = Metric::default();
        metric.set_histogram(value);
        self.family(name, help, MetricType::HISTOGRAM, [metric]);
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        metrics: impl IntoIterator<Item = Metric>,
    ) {
        let metrics: Vec<_> = metrics.into_iter().collect();
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

fn gauge(value: f64) -> Metric {
    let (mut gauge, mut metric) = (proto::Gauge::default(), Metric::default());
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn counter(value: u64) -> Metric {
    let (mut counter, mut metric) = (proto::Counter::default(), Metric::default());
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

fn labelled(mut metric: Metric, name: &str, value: &str) -> Metric {
    let mut label = LabelPair::default();
    label.set_name(name.into());
    label.set_value(value.into());
    metric.set_label(vec![label]);
    metric
}

/// Processor time, memory, open files and threads of the process.
fn process_families() -> Vec<MetricFamily> {
    #[cfg(target_os = "linux")]
    {
        use prometheus::{core::Collector, process_collector::ProcessCollector};
        ProcessCollector::for_self().collect()
    }
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}
