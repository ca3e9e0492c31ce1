"""A worker in another language, by nothing but docs/amqp.md and pika."""

import json
import sys

import pika

KIND = "test.foreign"

connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.queue_declare(KIND, durable=True, arguments={"x-queue-type": "quorum"})
channel.basic_qos(prefetch_count=8)
channel.confirm_delivery()


def reply(request, body, **more):
    properties = pika.BasicProperties(
        correlation_id=request.correlation_id,
        delivery_mode=request.delivery_mode,
        **more,
    )
    channel.basic_publish("", request.reply_to, body, properties)


def work(_channel, method, request, body):
    job = json.loads(body)
    progress = {"fraction": 0.5, "message": "half in Python"}
    reply(request, json.dumps(progress), type="progress")
    if job["say"] == "taken":
        problem = {"title": "Conflict", "status": 409, "detail": "Taken in Python."}
        headers = {"status": 409}
        reply(request, json.dumps(problem), headers=headers, content_type="application/problem+json")
    else:
        headers = {"status": 201, "http.location": "/python/" + job["say"]}
        reply(request, json.dumps(job), headers=headers, content_type="application/json")
    channel.basic_ack(method.delivery_tag)


channel.basic_consume(KIND, work)
print("ready", flush=True)
channel.start_consuming()
