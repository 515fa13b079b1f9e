/* kafka_count - how many messages a topic holds, by the watermarks of its partitions. HOST:PORT TOPIC */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <string.h>

enum { WAIT_MS = 10000 };

static int count(rd_kafka_t *client, const struct rd_kafka_metadata_topic *topic, int64_t *total)
{
    for (int at = 0; at < topic->partition_cnt; at++) {
        int64_t low = 0;
        int64_t high = 0;
        if (rd_kafka_query_watermark_offsets(client, topic->topic, topic->partitions[at].id, &low, &high,
                                             WAIT_MS) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return -1;
        }
        *total += high - low;
    }
    return 0;
}

int main(int argc, char **argv)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (argc != 3 ||
        rd_kafka_conf_set(conf, "bootstrap.servers", argv[1], why, sizeof why) != RD_KAFKA_CONF_OK) {
        return 64;
    }
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    const struct rd_kafka_metadata *metadata = NULL;
    int64_t total = 0;
    int result =
        client && rd_kafka_metadata(client, 1, NULL, &metadata, WAIT_MS) == RD_KAFKA_RESP_ERR_NO_ERROR ? 0
                                                                                                       : -1;
    for (int at = 0; result == 0 && at < metadata->topic_cnt; at++) {
        if (strcmp(metadata->topics[at].topic, argv[2]) == 0) {
            result = count(client, &metadata->topics[at], &total);
        }
    }
    (void)printf("%lld\n", (long long)total);
    return result == 0 ? 0 : 1;
}
