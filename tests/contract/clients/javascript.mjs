// Writes and reads as the AWS SDK for JavaScript does, which speaks HTTP/2 to Kinesis: argument 1 is the endpoint.
import { createRequire } from "node:module";

const { KinesisClient, ...kinesis } = createRequire(process.cwd() + "/")("@aws-sdk/client-kinesis");
const client = new KinesisClient({
  endpoint: process.argv[2],
  region: "us-east-1",
  credentials: { accessKeyId: "local", secretAccessKey: "local" },
});
const ask = (operation, given) => client.send(new kinesis[operation + "Command"](given));
const StreamName = "javascript";

await ask("CreateStream", { StreamName, ShardCount: 2 });
const Records = [...Array(100).keys()].map((n) => ({ Data: new Uint8Array([n, 0, 255]), PartitionKey: `key-${n}` }));
const put = await ask("PutRecords", { StreamName, Records });
const read = [];
for (const { ShardId } of (await ask("ListShards", { StreamName })).Shards) {
  const { ShardIterator } = await ask("GetShardIterator", { StreamName, ShardId, ShardIteratorType: "TRIM_HORIZON" });
  for (const record of (await ask("GetRecords", { ShardIterator })).Records) {
    read.push([record.PartitionKey, [...record.Data], record.ApproximateArrivalTimestamp.getTime()]);
  }
}
const refused = await ask("DescribeStream", { StreamName: "none" }).catch((error) => error.name);
console.log(JSON.stringify({ failed: put.FailedRecordCount, read, refused }));
client.destroy();
