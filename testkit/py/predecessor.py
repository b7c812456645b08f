"""A Django project in one file, whose models are published by the real django-outbox-pattern.

Arguments: the URL of a database, and `create` (makes the tables) or `save` (saves each model once, and some again).
The names of the tables are those of the models, in small letters.
"""

import datetime
import decimal
import sys
import uuid
from urllib.parse import urlsplit

import django
from django.conf import settings

url = urlsplit(sys.argv[1])
settings.configure(
    INSTALLED_APPS=["django_outbox_pattern"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.path.lstrip("/"),
            "USER": url.username,
            "HOST": url.hostname,
            "PORT": url.port,
        }
    },
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models  # noqa: E402
from django_outbox_pattern.decorators import Config, publish  # noqa: E402


def table(name):
    return type("Meta", (), {"app_label": "shop", "db_table": name})


# The examples of the README, in its order.


@publish([Config(destination="/topic/my_route_key")])
class OnlyDestination(models.Model):
    field_one = models.CharField(max_length=100)
    field_two = models.CharField(max_length=100)
    Meta = table("only_destination")


@publish([Config(destination="/topic/my_route_key", fields=["field_one"])])
class WithFields(models.Model):
    field_one = models.CharField(max_length=100)
    field_two = models.CharField(max_length=100)
    Meta = table("with_fields")


@publish([Config(destination="/topic/my_route_key", serializer="my_serializer")])
class WithSerializer(models.Model):
    field_one = models.CharField(max_length=100)
    field_two = models.CharField(max_length=100)
    Meta = table("with_serializer")

    def my_serializer(self):
        return {"id": self.id, "one": self.field_one, "two": self.field_two}


@publish(
    [
        Config(destination="/topic/my_route_key_1", serializer="my_serializer_1"),
        Config(destination="/topic/my_route_key_2", serializer="my_serializer_2"),
    ]
)
class ManySerializers(models.Model):
    field_one = models.CharField(max_length=100)
    field_two = models.CharField(max_length=100)
    Meta = table("many_serializers")

    def my_serializer_1(self):
        return {"id": self.id, "one": self.field_one}

    def my_serializer_2(self):
        return {"id": self.id, "two": self.field_two}


# What the README does not show.


@publish([Config(destination="/queue/versions", version="v2", fields=[])])
class OtherVersion(models.Model):
    code = models.CharField(max_length=20, primary_key=True)
    name = models.CharField(max_length=100)
    Meta = table("other_version")


@publish([Config(destination="/queue/values")])
class Values(models.Model):
    key = models.UUIDField(primary_key=True)
    small = models.SmallIntegerField()
    big = models.BigIntegerField()
    price = models.DecimalField(max_digits=30, decimal_places=10)
    ratio = models.FloatField()
    yes = models.BooleanField()
    text = models.TextField()
    day = models.DateField()
    at = models.DateTimeField()
    clock = models.TimeField()
    took = models.DurationField()
    other = models.UUIDField()
    document = models.JSONField()
    raw = models.BinaryField()
    address = models.GenericIPAddressField()
    nothing = models.DateTimeField(null=True)
    Meta = table("values_of_all_types")


@publish([Config(destination="/queue/arrays")])
class Arrays(models.Model):
    words = ArrayField(models.CharField(max_length=20))
    prices = ArrayField(models.DecimalField(max_digits=10, decimal_places=2))
    times = ArrayField(models.DateTimeField())
    Meta = table("arrays")


MODELS = [OnlyDestination, WithFields, WithSerializer, ManySerializers, OtherVersion, Values, Arrays]
UTC = datetime.timezone.utc


def values(key, **changes):
    return Values(
        **{
            "key": uuid.UUID(int=key),
            "small": -7,
            "big": 9007199254740993,
            "price": decimal.Decimal("9.5000000000"),
            "ratio": 0.1,
            "yes": True,
            "text": 'é "quoted" \\ \n ☃',
            "day": datetime.date(2026, 1, 31),
            "at": datetime.datetime(2026, 1, 31, 12, 0, 0, 123456, UTC),
            "clock": datetime.time(12, 0, 0, 120000),
            "took": datetime.timedelta(days=1, hours=2, microseconds=5),
            "other": uuid.UUID(int=255),
            "document": {"b": [1, None, "x"], "a": {"z": 1.5}},
            "raw": bytes(range(256)),
            "address": "192.0.2.1",
            "nothing": None,
            **changes,
        }
    )


def save():
    texts = {"field_one": "Field One", "field_two": "Field Two"}
    for model in MODELS[:4]:
        saved = model(**texts)
        saved.save()
        # Saved again as it is: it is published again.
        saved.save()
    OtherVersion(code="A-1", name="n").save()
    values(1).save()
    values(
        2,
        price=decimal.Decimal("-12345678901234567890.1234567890"),
        ratio=1e100,
        yes=False,
        text="",
        day=datetime.date(1, 1, 1),
        at=datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
        clock=datetime.time(23, 59, 59),
        took=datetime.timedelta(microseconds=-1),
        document=[],
        raw=b"",
        address="2001:db8::1",
    ).save()
    values(
        3,
        price=decimal.Decimal("0.0000010000"),
        at=datetime.datetime(2026, 1, 31, 12, 0, 0, 999, UTC),
        clock=datetime.time(0, 0, 0, 7),
        took=datetime.timedelta(0),
        document="text",
        nothing=datetime.datetime(2026, 1, 31, tzinfo=UTC),
    ).save()
    values(4, took=datetime.timedelta(days=-3, seconds=59), at=datetime.datetime(1969, 12, 31, 23, 59, 59, 1000, UTC)).save()
    Arrays(
        words=["a", 'b"'],
        prices=[decimal.Decimal("1.50"), None],
        times=[datetime.datetime(2026, 1, 31, 12, 0, 0, 500000, UTC)],
    ).save()


if sys.argv[2] == "create":
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        for model in MODELS:
            editor.create_model(model)
else:
    save()
