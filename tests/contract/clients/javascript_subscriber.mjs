// Reads a shard as the AWS SDK for JavaScript does: arguments are the endpoint, the consumer's ARN and the shard.
import { createRequire } from "node:module";

const { KinesisClient, SubscribeToShardCommand } = createRequire(process.cwd() + "/")("@aws-sdk/client-kinesis");
const [endpoint, ConsumerARN, ShardId] = process.argv.slice(2);
const client = new KinesisClient({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "local", secretAccessKey: "local" },
});
const StartingPosition = { Type: "TRIM_HORIZON" };
const answer = await client.send(new SubscribeToShardCommand({ ConsumerARN, ShardId, StartingPosition }));
const said = { read: [], children: [], events: 0 };
for await (const { SubscribeToShardEvent: event } of answer.EventStream) {
  said.events += 1;
  said.read.push(...event.Records.map((record) => [record.PartitionKey, [...record.Data]]));
  said.children.push(...(event.ChildShards ?? []).map((child) => child.ShardId));
}
console.log(JSON.stringify(said));
client.destroy();
