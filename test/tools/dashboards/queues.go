package main

import "github.com/grafana/grafana-foundation-sdk/go/units"

func queues() board {
	return board{
		uid: "gpuq-queues", title: "Queues and brokers", since: "now-6h",
		question: "What waits, for how long, is it being fetched, and are RabbitMQ and Redis well?",
		rows: []row{
			section("Queues", 8, queuesOfJobs()...),
			section("Messages", 8, queuesTraffic()...),
			section("RabbitMQ", 8, queuesRabbit()...),
			section("Redis", 8, queuesRedis()...),
		},
	}
}

func queuesOfJobs() []panel {
	return []panel{
		number("Nodes of RabbitMQ", units.Short, "That answer Prometheus.",
			orZero(promql(`count (up{job="rabbitmq"} == 1)`), "rabbitmq").as("answer"),
			promql(`count (up{job="rabbitmq"})`).as("of")).wide(6).runbook("RabbitMQNodeDown", "RabbitMQQuorumAtRisk", "RabbitMQNoQuorum", "RabbitMQPartition"),
		number("Jobs waiting", units.Short, "Messages ready in all queues of jobs, as the host that looked last saw each.",
			orZero(sumOf(waiting), "gpuqd").as("waiting")).wide(6).runbook("QueueGrowing"),
		number("Dead letters in a day", units.Short, "Messages set aside with a reason: gpuqctl dead list.",
			promql(`sum (increase(gpuqd_dead_letters_recorded_total[1d]))`).as("dead letters")).colour(step{1, orange}).wide(6).runbook("DeadLetters"),
		number("Shapes", units.Short, "Kinds of jobs that a daemon knows. Near take.shapes_max new ones are refused soon.",
			maxOf(metric("gpuqd_shapes")).as("shapes")).wide(6),
		graph("Depth", units.Short, "Messages ready in each queue, as the host that looked last saw it.",
			waiting.as("{{queue}}")).runbook("QueueGrowing"),
		graph("Oldest", units.Seconds, "How long the oldest message of a shape has waited, by the ledger. 0 while none is older than take.slack.",
			maxOf(metric("gpuqd_queue_oldest_seconds"), "queue").as("{{queue}}")).runbook("QueueHeadTooOld"),
		graph("Age of the last look", units.Seconds, "How long ago any host has looked at a queue: hosts look while they could start one of its jobs, so that old means busy.",
			promql(`time() - max by (queue) (gpuqd_queue_looked_timestamp_seconds)`).as("{{queue}}")),
		graph("Free for them", units.Short, "Devices and slots that could start a job now. Where jobs wait beside these, gpuqctl why says why.",
			sumOf(metric("gpuqd_devices", `state="free"`)).as("devices"),
			sumOf(metric("gpuqd_slots", `state="free"`)).as("slots")).runbook("QueueHeadTooOld"),
	}
}

func queuesTraffic() []panel {
	return []panel{
		graph("In and out", units.CountsPerSecond, "Jobs submitted, messages taken from queues, claims won, and results committed.",
			ratePerSecond(metric("gpuqd_submissions_total", `result="created"`)).as("submitted"),
			ratePerSecond(metric("gpuqd_takes_total")).as("taken"),
			ratePerSecond(metric("gpuqd_claims_total")).as("claimed"),
			ratePerSecond(metric("gpuqd_commits_total")).as("committed")),
		graph("Duplicates", units.CountsPerSecond, "Messages acked without a run, by who knew. Those of held and own come after a lost connection.",
			ratePerSecond(metric("gpuqd_duplicates_total"), "source").as("{{source}}")).runbook("DuplicatesRising"),
		graph("Redelivered, requeued, retried", units.CountsPerSecond, "Redelivered: a connection or host was lost, or a message given back. Requeued: back at no cost to the job. Retried: on its budget.",
			ratePerSecond(metric("gpuqd_redeliveries_total")).as("redelivered"),
			ratePerSecond(metric("gpuqd_given_back_total")).as("given back"),
			ratePerSecond(metric("gpuqd_requeues_total")).as("requeued"),
			ratePerSecond(metric("gpuqd_retries_total")).as("retried"),
			ratePerSecond(metric("gpuqd_republished_total")).as("published again")),
		graph("Claims refused", units.CountsPerSecond, "Messages whose job was not to be had, by reason.",
			ratePerSecond(metric("gpuqd_claims_refused_total"), "reason").as("{{reason}}")),
		graph("Publishing", units.Seconds, "Until RabbitMQ confirms a message, of those of the last 10 minutes.",
			quantile(0.5, metric("gpuqd_broker_operation_duration_seconds", `operation="publish"`)).as("half"),
			quantile(0.95, metric("gpuqd_broker_operation_duration_seconds", `operation="publish"`)).as("95 of 100")),
		graph("Dead letters", units.Short, "Messages set aside in 10 minutes, by the host that did.",
			promql(`sum by (host) (increase(gpuqd_dead_letters_total[10m]))`).as("{{host}}")).runbook("DeadLetters"),
	}
}

func queuesRabbit() []panel {
	return []panel{
		graph("Memory", units.PercentUnit, "Of what each node may use. At 1 it accepts nothing until it is less.",
			promql(`rabbitmq_process_resident_memory_bytes / on (host) rabbitmq_resident_memory_limit_bytes`).as("{{host}}")).share().runbook("RabbitMQAlarm"),
		graph("Free disk", units.BytesIEC, "Of each node, and the limit below which it accepts nothing.",
			maxOf(metric("rabbitmq_disk_space_available_bytes"), "host").as("{{host}}"),
			maxOf(metric("rabbitmq_disk_space_available_limit_bytes")).as("limit")).runbook("RabbitMQAlarm"),
		graph("Alarms", units.Short, "1 while a node has one: nobody can publish then.",
			maxOf(metric("rabbitmq_alarms_memory_used_watermark"), "host").as("{{host}} memory"),
			maxOf(metric("rabbitmq_alarms_free_disk_space_watermark"), "host").as("{{host}} disk"),
			maxOf(metric("rabbitmq_alarms_file_descriptor_limit"), "host").as("{{host}} files")).runbook("RabbitMQAlarm"),
		stack("Messages in all queues", units.Short, "Ready: nobody has taken them. Unacked: delivered, and their jobs not over.",
			sumOf(metric("rabbitmq_queue_messages_ready")).as("ready"),
			sumOf(metric("rabbitmq_queue_messages_unacked")).as("unacked")),
		graph("Connections, channels, consumers", units.Short, "Of all nodes. gpuqd fetches messages one by one; its consumers are those of bells and requests.",
			sumOf(metric("rabbitmq_connections")).as("connections"),
			sumOf(metric("rabbitmq_channels")).as("channels"),
			sumOf(metric("rabbitmq_consumers")).as("consumers")),
		graph("Queues by node", units.Short, "Whose leader each node is. A node that came back has fewer until they are balanced.",
			maxOf(metric("rabbitmq_queues"), "host").as("{{host}}")),
		graph("Published and delivered", units.CountsPerSecond, "By all nodes, those for bells and requests included.",
			ratePerSecond(metric("rabbitmq_global_messages_received_total")).as("published"),
			ratePerSecond(metric("rabbitmq_global_messages_delivered_total")).as("delivered"),
			ratePerSecond(metric("rabbitmq_global_messages_acknowledged_total")).as("acked")),
		graph("Commits of quorum queues", units.Seconds, "How long the slowest queue of each node takes until a majority has an entry.",
			maxOf(metric("rabbitmq_raft_entry_commit_latency_seconds"), "host").as("{{host}}")),
		graph("gpuqd's connections", units.Short, "How many hosts have each connection up; blocked ones wait for an alarm to end.",
			sumOf(metric("gpuqd_broker_connected"), "connection").as("{{connection}}"),
			sumOf(metric("gpuqd_broker_blocked")).as("blocked")).runbook("BrokerConnectionDown"),
		graph("Connections lost", units.Short, "By gpuqd in 10 minutes, by host.",
			promql(`sum by (host) (increase(gpuqd_broker_connections_lost_total[10m]))`).as("{{host}}")).runbook("BrokerConnectionDown"),
	}
}

func queuesRedis() []panel {
	return []panel{
		number("Redis", units.NoUnit, "Whether each answers. Without Redis gpuqd works on: the ledger then turns duplicates away.",
			maxOf(metric("redis_up"), "host").as("{{host}}")).say(onOff("answers", "down")...).wide(6).runbook("RedisDown"),
		number("Masters", units.Short, "How many say that they are the master. There is to be one: two were cut off from each other.",
			orZero(promql(`count (redis_instance_info{role="master"})`), "redis").as("masters")).colour(below(red), step{1, green}, step{2, red}).wide(6),
		graph("Replicas", units.Short, "That each Redis feeds. A master without any loses the cache with its host.",
			maxOf(metric("redis_connected_slaves"), "host").as("{{host}}")).runbook("RedisWithoutReplica"),
		graph("Memory", units.BytesIEC, "Of each Redis, and what the least may use. At that it refuses writes.",
			maxOf(metric("redis_memory_used_bytes"), "host").as("{{host}}"),
			minOf(metric("redis_memory_max_bytes")).as("most")),
		graph("Commands and clients", units.Short, "Commands in a second, and connected clients.",
			ratePerSecond(metric("redis_commands_processed_total"), "host").as("{{host}} commands"),
			sumOf(metric("redis_connected_clients"), "host").as("{{host}} clients")),
		graph("Done-cache", units.OpsPerSecond, "What gpuqd asks of it, by result. miss is an answer.",
			ratePerSecond(metric("gpuqd_done_cache_operation_duration_seconds_count"), "operation", "result").as("{{operation}} {{result}}")),
		graph("Circuits", units.Short, "How many hosts do not ask Redis for a while, since it failed.",
			sumOf(metric("gpuqd_done_cache_circuit_open"), "circuit").as("{{circuit}}")).runbook("DoneCacheUnused"),
	}
}
